{{
    config(
        materialized='incremental',
        incremental_strategy='headwater_newest',
        unique_key=$key,
        on_schema_change='append_new_columns',
    )
}}

{%- set columns = $columns %}

{{ headwater_newest(source('$source', '$relation'), key=$key, columns=columns) }}
