{{ config(materialized='view') }}

{%- set columns = $columns %}

{{ headwater_remaining(ref('base_$relation'), columns=columns$but) }}
