-- After the rows are in, which is several times faster. Not every flight has its plane, its destination or
-- its hour of weather in this data, so those are not foreign keys.
alter table nyc.airlines add primary key (carrier);
alter table nyc.airports add primary key (faa);
alter table nyc.planes add primary key (tailnum);
alter table nyc.weather add primary key (origin, time_hour),
    add foreign key (origin) references nyc.airports;
alter table nyc.flights add primary key (id),
    add foreign key (carrier) references nyc.airlines,
    add foreign key (origin) references nyc.airports;
analyze nyc.airlines, nyc.airports, nyc.planes, nyc.weather, nyc.flights;
