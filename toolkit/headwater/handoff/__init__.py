"""Handoff: staged changes become dbt sources, and a generated dbt project merges them into the warehouse.

`dbt.py` renders the project, `project.py` writes it beside the user's own files, `warehouses.py` holds the
facts of each warehouse, `stage.py` puts staged changes where dbt sources read them, `build.py` runs dbt.
"""
