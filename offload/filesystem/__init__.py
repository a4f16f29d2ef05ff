"""Files and folders that other users may try to exchange, and the accounts that own them."""
