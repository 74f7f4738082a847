{{ config(materialized='view') }}

{%- set columns = {
    'url': 'VARCHAR',
    'seconds': 'DOUBLE',
} %}

{{ headwater_remaining(ref('base_public__page_views'), columns=columns) }}
