"""`make bench`: our path, its limits and its peers in one run. docs/performance.md says how to read it.

A *part* (cdc, full, fold, ...) builds its data and adds rows to the report. What is measured is a *job*: a
function in a process of its own (`measure`), so that seconds, CPU and memory belong to it alone. Jobs of one
part take turns (`bench.Bench.rounds`): what else the machine does hits all of them alike.
"""
