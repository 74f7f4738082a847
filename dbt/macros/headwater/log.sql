{#- Every change in the window as it is: tables without a key are kept as a log (strategy headwater_replace). -#}
{% macro headwater_log(changes, columns) %}
with changes as (

    select
        {{- headwater_typed(columns) }}
        _hw_op,
        _hw_seq,
        _hw_at,
        _hw_text
    from {{ changes }}
    where {{ headwater_window() }}

)

select * from changes
{% endmacro %}


{#-
    The rows that are there now, of a table without a key: equal rows cannot be told apart, so each delete takes away
    one of the rows that equal it in all columns, `but` those that the source has no more.
-#}
{% macro headwater_remaining(log, columns, but=[]) %}
{%- set own = {} %}
{%- for name, type in columns.items() if name not in but %}{% do own.update({name: type}) %}{% endfor %}
with log as (

    select * from {{ log }}

),

counted as (

    select
        *,
        row_number() over (
            partition by {{ headwater_identity(own) }}, _hw_op = 'd'
            order by _hw_seq desc
        ) as _hw_place,
        sum(case when _hw_op = 'd' then 1 else 0 end) over (
            partition by {{ headwater_identity(own) }}
        ) as _hw_deletes,
        sum(case when _hw_op = 'd' then 0 else 1 end) over (
            partition by {{ headwater_identity(own) }}
        ) as _hw_inserts
    from log

),

remaining as (

    select
        {{- headwater_typed(columns) }}
        _hw_seq,
        _hw_at,
        _hw_text
    from counted
    where _hw_op <> 'd' and _hw_place <= _hw_inserts - _hw_deletes

)

select * from remaining
{% endmacro %}
