-- The newest revision of each message, decided before any filter: a correction may have moved its print to another
-- minute, day or side.
SELECT stored.*
FROM stored
ANTI JOIN (
    SELECT message_id, max(revision) AS newest
    FROM corrections
    GROUP BY message_id
) AS correction
    ON stored.message_id = correction.message_id AND stored.revision < correction.newest
