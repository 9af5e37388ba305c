/* The shared table with a slot for each live descriptor. */
typedef int leakline_table_unit;
