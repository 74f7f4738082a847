{{ config(materialized='view') }}

{%- set columns = {
    'id': 'BIGINT',
    'v': 'BIGINT',
} %}

{{ headwater_current(ref('base_s__a'), columns=columns) }}
