"""The functions, operators and types a statement may use, each read before it was listed.

Left out on purpose: what reads anything but its arguments (files, settings, variables, catalogs, the clock, random
numbers), what runs text as SQL, what waits, and what makes much out of little (repeat, the pads, printf).
"""

from __future__ import annotations

_OPERATORS = "+ - * / // % ** ^ & | << >> ~ || ~~ !~~ ~~* !~~* ~~~ @ !"
_AGGREGATES = """
    count count_star count_if countif sum fsum sum_no_overflow sumkahan kahan_sum avg mean favg product min max
    min_by max_by arg_min arg_max argmin argmax first last any_value arbitrary median mode quantile quantile_cont
    quantile_disc percentile_cont percentile_disc mad approx_count_distinct approx_quantile stddev stddev_pop
    stddev_samp variance var_pop var_samp sem covar_pop covar_samp corr regr_avgx regr_avgy regr_count
    regr_intercept regr_r2 regr_slope regr_sxx regr_sxy regr_syy
    skewness kurtosis kurtosis_pop entropy bool_and bool_or bit_and bit_or bit_xor
    string_agg group_concat listagg list array_agg histogram geomean geometric_mean
"""
_WINDOWS = (
    "row_number rank rank_dense dense_rank percent_rank cume_dist ntile lag lead first_value last_value nth_value"
)
_NUMBERS = """
    abs add subtract multiply divide mod fmod ceil ceiling floor round round_even roundbankers trunc sign sqrt cbrt ln
    log log2 log10 exp pow power pi sin cos tan cot asin acos atan atan2 sinh cosh tanh degrees radians greatest least
    isnan isinf isfinite signbit gcd lcm greatest_common_divisor least_common_multiple bit_count xor nullif ifnull
    width_bucket
"""
_TEXTS = """
    lower lcase upper ucase length len char_length character_length strlen concat concat_ws substr substring left right
    trim ltrim rtrim replace translate split split_part string_split str_split string_to_array starts_with ends_with
    prefix suffix contains instr strpos position reverse regexp_matches regexp_full_match regexp_extract
    regexp_extract_all regexp_replace regexp_split_to_array like_escape ilike_escape not_like_escape not_ilike_escape
    ascii chr unicode ord md5 sha256 hash hex to_hex levenshtein editdist3 strip_accents
"""
_INSTANTS = """
    date_part datepart date_trunc datetrunc date_diff datediff date_sub datesub date_add year month day hour minute
    second millisecond microsecond quarter week weekofyear weekday dayofweek dayofmonth dayofyear isodow isoyear
    yearweek era century decade millennium epoch epoch_ms epoch_us epoch_ns to_timestamp make_date make_time
    make_timestamp make_timestamptz strftime strptime try_strptime time_bucket timezone last_day dayname monthname
    to_years to_months to_weeks to_days to_hours to_minutes to_seconds to_milliseconds to_microseconds julian
"""
_LISTS = """
    map list_value list_contains list_has array_contains array_has list_has_any array_has_any list_has_all array_has_all
    list_position array_position list_length array_length cardinality list_sort array_sort list_distinct array_distinct
    list_unique list_count list_sum list_avg list_min list_max list_extract list_element array_extract list_slice
    array_slice list_concat array_concat list_append array_append flatten unnest map_keys map_values map_contains
    map_extract element_at map_entries array_to_string
"""
_TYPES = """
    tinyint smallint integer int int1 int2 int4 int8 int16 int32 int64 int128 short long signed bigint hugeint
    utinyint usmallint uinteger ubigint uhugeint float float4 float8 real double decimal dec numeric
    boolean bool logical varchar text string char bpchar date time timestamp datetime timestamp_s timestamp_ms
    timestamp_us timestamp_ns timestamptz timetz interval uuid blob bytea list map
"""

FUNCTIONS = frozenset(
    name for names in (_OPERATORS, _AGGREGATES, _WINDOWS, _NUMBERS, _TEXTS, _INSTANTS, _LISTS) for name in names.split()
) | {"generate_series", "range"}
"""Scalar, aggregate and window functions, in lower case."""
TABLE_FUNCTIONS = frozenset({"generate_series", "range", "unnest"})
"""What may stand behind FROM with arguments: it makes rows of its arguments alone."""
FUNCTIONS_WITHOUT_CALL = frozenset(
    {
        *("current_catalog", "current_database", "current_date", "current_role", "current_schema", "current_time"),
        *("current_timestamp", "current_user", "localtime", "localtimestamp", "session_user", "user"),
    }
)
"""Words that look like columns and are calls, of the clock among others, where no column has the name."""
TYPES = frozenset(_TYPES.split()) | {"timestamp with time zone", "time with time zone"}
"""Types a value may be cast to."""
