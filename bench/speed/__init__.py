"""Programs that measure speed and print a table. They may import `selfplay.app`; nothing imports them."""
