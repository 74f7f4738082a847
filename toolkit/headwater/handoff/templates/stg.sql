{{ config(materialized='view'$current_as) }}

{%- set columns = $columns %}

{{ headwater_current(ref('base_$relation'), columns=columns) }}
