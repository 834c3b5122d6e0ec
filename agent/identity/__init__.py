"""Who this host is: region, host identifier, credentials, and the endpoints that follow from them.

Loaded in the process at rest, so the standard library's light modules only. The on-premises file
is YAML: `agent.identity.on_premises_file` reads it, in a process that ends.
"""

from agent.identity.credentials import Credentials
from agent.identity.endpoints import ControlEndpoint, EndpointChoice, control_endpoint, s3_endpoint
from agent.identity.host_identity import CredentialSource, HostIdentity, identify_host
from agent.identity.metadata import InstanceMetadata, metadata_endpoint
from agent.identity.on_premises import IamSession, IamUser, OnPremisesIdentity
from agent.identity.signing import sign_headers

__all__ = [
    "ControlEndpoint",
    "CredentialSource",
    "Credentials",
    "EndpointChoice",
    "HostIdentity",
    "IamSession",
    "IamUser",
    "InstanceMetadata",
    "OnPremisesIdentity",
    "control_endpoint",
    "identify_host",
    "metadata_endpoint",
    "s3_endpoint",
    "sign_headers",
]
