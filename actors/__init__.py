"""What a tunnel is made of: session, event loop, event stream, peers, portal link, device, host network."""
