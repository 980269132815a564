-- Role and database, by psql as the superuser, once. The password is the content of the file that the nodes'
-- cache.database_password_file names. The tables are made by the first node that starts.
\set password `cat /run/secrets/database-password`
CREATE ROLE keyserver LOGIN PASSWORD :'password';
CREATE DATABASE keyserver OWNER keyserver ENCODING 'UTF8' TEMPLATE template0;
