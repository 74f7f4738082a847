"""The demo: an embedded PostgreSQL, a public data set and a live workload, end to end."""
