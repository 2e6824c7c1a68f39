"""How a loop went, on a page: charts of figures by iteration, tables, examples side by side."""
