-- What the lab's source holds: two small databases of an application, for the playbooks to move.
CREATE DATABASE shop OWNER app_owner;
CREATE DATABASE billing OWNER app_owner;
\connect shop
SET ROLE app_owner;
CREATE TABLE public.customer (id int GENERATED ALWAYS AS IDENTITY PRIMARY KEY, name text NOT NULL, since timestamptz NOT NULL DEFAULT now());
CREATE TABLE public.purchase (
    id bigserial PRIMARY KEY,
    customer int NOT NULL REFERENCES public.customer,
    amount numeric(12, 2) NOT NULL,
    note jsonb
);
CREATE INDEX ON public.purchase (customer);
INSERT INTO public.customer (name) SELECT 'customer ' || i FROM generate_series(1, 500) i;
INSERT INTO public.purchase (customer, amount, note)
    SELECT 1 + i % 500, i / 7.0, jsonb_build_object('line', i) FROM generate_series(1, 5000) i;
RESET ROLE;
\connect billing
SET ROLE app_owner;
CREATE TABLE public.invoice (id int PRIMARY KEY, total numeric NOT NULL, sent boolean NOT NULL DEFAULT false);
INSERT INTO public.invoice SELECT i, i * 1.19, i % 3 = 0 FROM generate_series(1, 1000) i;
