{#-
    Which changes a model reads: those after the newest one it holds, which it is asked for itself. No watermark is
    kept anywhere else, so a model that is lost or rebuilt cannot skip any.

    To apply any span of changes again:  dbt build --vars '{headwater_after: 1200, headwater_upto: 4000}'
-#}
{% macro headwater_window() -%}
    {%- set after = var('headwater_after', none) -%}
    {%- if after is none and is_incremental() -%}
        {%- set after = headwater_low_mark() -%}
    {%- endif -%}
    {%- set upto = var('headwater_upto', none) -%}
    _hw_seq > {{ -1 if after is none else after | int }}{{ ' and _hw_seq <= ' ~ (upto | int) if upto is not none }}
{%- endmacro %}


{#- The newest change the model holds, as a number: a literal lets every engine skip files and partitions. -#}
{% macro headwater_low_mark() -%}
    {%- if not execute -%}{{ return(-1) }}{%- endif -%}
    {%- set found = run_query('select coalesce(max(_hw_seq), -1) as low_mark from ' ~ this) -%}
    {{ return(found.columns[0].values()[0] | int) }}
{%- endmacro %}
