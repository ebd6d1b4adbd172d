"""Tests, one folder per package they mirror. Nothing of K2's own is mocked: brokers, registries and files are real."""
