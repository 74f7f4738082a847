{{
    config(
        materialized='incremental',
        incremental_strategy='headwater_versions',
        unique_key=$version_key,
        on_schema_change='append_new_columns',
    )
}}

{%- set columns = $columns %}

{{
    headwater_versions(
        source('$source', '$relation'),
        key=$key,
        columns=columns,
        valid_from=$valid_from,
        valid_to=$valid_to,
        current=$current,
        open_end=$open_end,
    )
}}
