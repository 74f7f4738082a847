-- The table of every part: 10 columns, as in issue 3.
create table orders (
  id bigint primary key,
  customer int not null,
  status text,
  amount numeric(12, 2),
  quantity int,
  score float8,
  ordered timestamptz,
  changed timestamp,
  note text,
  paid bool
);

create function make_orders(first bigint, last bigint) returns setof orders language sql as $$
  select n, (n * 7919 % 100000)::int, (array['new', 'paid', 'sent', 'returned'])[1 + n % 4],
    (n * 7919 % 10000000)::numeric / 100, (n % 100)::int, sqrt(n),
    timestamptz '2026-01-01 00:00:00.123456+00' + n * interval '1.000371 s',
    timestamp '2026-01-01 00:00:00' + n * interval '0.73 s', 'order ' || md5(n::text), n % 3 = 0
  from generate_series(first, last) n
$$;

-- Rounds of three transactions each; says how many changes they made.
create procedure work(rounds int, inserts int, updates int, deletes int, inout made bigint) language plpgsql as $$
declare
  top bigint := (select coalesce(max(id), 0) from orders);
  count bigint;
begin
  made := 0;
  for round in 1 .. rounds loop
    insert into orders select * from make_orders(top + 1, top + inserts);
    top := top + inserts;
    made := made + inserts;
    commit;
    update orders set amount = amount + 1, changed = changed + interval '1 s', note = 'later ' || md5(note)
      where id in (select 1 + (random() * (top - 1))::bigint from generate_series(1, updates));
    get diagnostics count = row_count;
    made := made + count;
    commit;
    delete from orders where id in (select 1 + (random() * (top - 1))::bigint from generate_series(1, deletes));
    get diagnostics count = row_count;
    made := made + count;
    commit;
  end loop;
end $$;

-- One row a transaction.
create procedure small_work(count int, inout made bigint) language plpgsql as $$
declare
  top bigint := (select coalesce(max(id), 0) from orders);
begin
  for n in 1 .. count loop
    insert into orders select * from make_orders(top + n, top + n);
    commit;
  end loop;
  made := count;
end $$;

-- Everything in one transaction.
create procedure big_work(count int, inout made bigint) language plpgsql as $$
begin
  insert into orders select * from make_orders(1, count);
  made := count;
end $$;
