{{ config(materialized='view') }}

{%- set columns = $columns %}

{{ headwater_current(ref('base_$relation'), columns=columns) }}
