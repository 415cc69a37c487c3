"""What a person starts or imports: client, gateway, relay, portal, demo and the command line."""
