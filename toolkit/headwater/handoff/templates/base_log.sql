{{
    config(
        materialized='incremental',
        incremental_strategy='headwater_replace',
        unique_key='_hw_seq',
        on_schema_change='append_new_columns',
    )
}}

{%- set columns = $columns %}

{{ headwater_log(source('$source', '$relation'), columns=columns) }}
