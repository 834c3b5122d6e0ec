"""The service model of the host command protocol: members are PascalCase, every error is a ClientException."""

from __future__ import annotations

from typing import Any, Final

from botocore.model import ServiceModel

STACKS: Final = {
    "CodeDeployCommandService_v20141006": "codedeploy-commands",
    "CodeDeployCommandService": "codedeploy-commands-secure",
}
"""Target prefix → signing name. The two change together; a mix is an unknown operation."""

_STATUS: Final = ["Pending", "InProgress", "Succeeded", "Failed"]


def _structure(required: tuple[str, ...] = (), **members: str) -> dict[str, Any]:
    shapes = {name: {"shape": shape} for name, shape in members.items()}
    return {"type": "structure", "required": list(required), "members": shapes}


_SHAPES: Final[dict[str, Any]] = {
    "Identifier": {"type": "string", "min": 1, "max": 1024},
    "ExecutionId": {"type": "string", "min": 1, "max": 129},
    "Status": {"type": "string", "enum": _STATUS},
    "Time": {"type": "timestamp"},
    "Number": {"type": "long"},
    "Text": {"type": "string"},
    "EnvelopeFormat": {"type": "string", "min": 1, "max": 64},
    "EnvelopePayload": {"type": "string", "max": 8192},
    "SignedText": {"type": "string"},
    "Envelope": _structure(("Format", "Payload"), Format="EnvelopeFormat", Payload="EnvelopePayload"),
    "GenericEnvelope": _structure(Format="EnvelopeFormat", Payload="SignedText"),
    "HostCommand": _structure(
        HostCommandIdentifier="Identifier",
        HostIdentifier="Identifier",
        DeploymentExecutionId="ExecutionId",
        CommandName="Text",
        Nonce="Number",
    ),
    "PollHostCommandInput": _structure(("HostIdentifier",), HostIdentifier="Identifier"),
    "PollHostCommandOutput": _structure(HostCommand="HostCommand"),
    "GetDeploymentSpecificationInput": _structure(
        ("DeploymentExecutionId", "HostIdentifier"),
        DeploymentExecutionId="ExecutionId",
        HostIdentifier="Identifier",
    ),
    "DeploymentSpecification": _structure(GenericEnvelope="GenericEnvelope"),
    "GetDeploymentSpecificationOutput": _structure(
        DeploymentSystem="Text", DeploymentSpecification="DeploymentSpecification"
    ),
    "PutHostCommandAcknowledgementInput": _structure(
        ("HostCommandIdentifier",), HostCommandIdentifier="Identifier", Diagnostics="Envelope"
    ),
    "StatusOutput": _structure(CommandStatus="Status"),
    "PutHostCommandCompleteInput": _structure(
        ("HostCommandIdentifier", "CommandStatus"),
        HostCommandIdentifier="Identifier",
        CommandStatus="Status",
        Diagnostics="Envelope",
    ),
    "EmptyOutput": _structure(),
    "PostHostCommandUpdateInput": _structure(
        ("HostCommandIdentifier",),
        HostCommandIdentifier="Identifier",
        EstimatedCompletionTime="Time",
        Diagnostics="Envelope",
    ),
}

_OUTPUTS: Final = {
    "PollHostCommand": "PollHostCommandOutput",
    "GetDeploymentSpecification": "GetDeploymentSpecificationOutput",
    "PutHostCommandAcknowledgement": "StatusOutput",
    "PutHostCommandComplete": "EmptyOutput",
    "PostHostCommandUpdate": "StatusOutput",
}

HOST_MODEL: Final = ServiceModel(
    {
        "metadata": {"protocol": "json", "jsonVersion": "1.1"},
        "operations": {
            name: {
                "name": name,
                "http": {"method": "POST", "requestUri": "/"},
                "input": {"shape": f"{name}Input"},
                "output": {"shape": output},
            }
            for name, output in _OUTPUTS.items()
        },
        "shapes": _SHAPES,
    },
    "codedeploy-commands",
)
