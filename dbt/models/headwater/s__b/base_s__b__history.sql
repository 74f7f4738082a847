{{
    config(
        materialized='incremental',
        incremental_strategy='headwater_versions',
        unique_key=['id', '_hw_seq'],
        on_schema_change='append_new_columns',
    )
}}

{%- set columns = {
    'id': 'BIGINT',
    'v': 'BIGINT',
} %}

{{
    headwater_versions(
        source('p', 's__b'),
        key=['id'],
        columns=columns,
        valid_from='valid_from',
        valid_to='valid_to',
        current='is_current',
        open_end='null',
    )
}}
