{#-
    The newest change of each key in the window, deletes included: what the strategy headwater_newest merges.
    A delete stays, with its key and its number, so that no older change can bring the row back.
-#}
{% macro headwater_newest(changes, key, columns) %}
with changes as (

    select * from {{ changes }}
    where {{ headwater_window() }}

),

ranked as (

    select
        *,
        row_number() over (partition by {{ headwater_list(key) }} order by _hw_seq desc) as _hw_age
    from changes

),

newest as (

    select
        {{- headwater_typed(columns) }}
        _hw_op,
        _hw_seq,
        _hw_at,
        _hw_text,
        _hw_op = 'd' as _hw_deleted
    from ranked
    where _hw_age = 1

)

select * from newest
{% endmacro %}


{#- The rows that are there now: the newest change of each key, unless it deleted the row. -#}
{% macro headwater_current(newest, columns) %}
with newest as (

    select * from {{ newest }}

),

there as (

    select
        {{- headwater_typed(columns) }}
        _hw_seq,
        _hw_at,
        _hw_text
    from newest
    where not _hw_deleted

)

select * from there
{% endmacro %}
