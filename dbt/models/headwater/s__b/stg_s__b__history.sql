{{ config(materialized='view') }}

{%- set columns = {
    'id': 'BIGINT',
    'v': 'BIGINT',
} %}

{{
    headwater_history(
        ref('base_s__b__history'),
        columns=columns,
        valid_from='valid_from',
        valid_to='valid_to',
        current='is_current',
    )
}}
