"""What a table holds that was written."""

from kdcli.tables.read import ROW_NUMBER, read_table


def rows_of(path):
    return read_table(path).frame().drop(ROW_NUMBER).rows()
