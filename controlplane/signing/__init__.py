"""The certificate authority of the endpoint, and the signed deployment specifications."""
