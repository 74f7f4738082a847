{{ config(materialized='view'$current_as) }}

{%- set columns = $columns %}

{{ headwater_remaining(ref('base_$relation'), columns=columns$but) }}
