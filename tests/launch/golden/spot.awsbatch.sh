#!/bin/bash
# tickets-RUNID01234: a job of AWS Batch, by `runner export awsbatch ...`
#
# submit   bash spot.awsbatch.sh
# watch    aws batch describe-jobs --jobs JOBID; aws logs tail /aws/batch/job --follow
# stop     aws batch terminate-job --job-id JOBID --reason stopped
# go on    bash spot.awsbatch.sh
# results  runner fetch s3://fernhill/runs/tickets runs/tickets
#
# The secret is JSON that holds each of JUDGE_KEY, HF_TOKEN, WANDB_API_KEY.
#
# Codes that may pass, and a machine that was taken away, are tried again. An attempt that is killed, or ended by the
# timeout, is not: AWS Batch takes five rules.
set -euo pipefail

aws batch register-job-definition --cli-input-json '{
  "jobDefinitionName": "tickets-RUNID01234",
  "type": "container",
  "platformCapabilities": [
    "EC2"
  ],
  "retryStrategy": {
    "attempts": 5,
    "evaluateOnExit": [
      {
        "onStatusReason": "Host EC2*",
        "action": "RETRY"
      },
      {
        "onExitCode": "69",
        "action": "RETRY"
      },
      {
        "onExitCode": "74",
        "action": "RETRY"
      },
      {
        "onExitCode": "75",
        "action": "RETRY"
      },
      {
        "onReason": "*",
        "action": "EXIT"
      }
    ]
  },
  "timeout": {
    "attemptDurationSeconds": 43200
  },
  "containerProperties": {
    "image": "registry.example.com/team/runner:0.1.0",
    "command": [
      "run",
      "/work/tickets.yaml",
      "--out",
      "s3://fernhill/runs/tickets"
    ],
    "secrets": [
      {
        "name": "JUDGE_KEY",
        "valueFrom": "arn:aws:secretsmanager:eu-west-1:123456789012:secret:runner-AbCdEf:JUDGE_KEY::"
      },
      {
        "name": "HF_TOKEN",
        "valueFrom": "arn:aws:secretsmanager:eu-west-1:123456789012:secret:runner-AbCdEf:HF_TOKEN::"
      },
      {
        "name": "WANDB_API_KEY",
        "valueFrom": "arn:aws:secretsmanager:eu-west-1:123456789012:secret:runner-AbCdEf:WANDB_API_KEY::"
      }
    ],
    "resourceRequirements": [
      {
        "type": "VCPU",
        "value": "8"
      },
      {
        "type": "MEMORY",
        "value": "57220"
      },
      {
        "type": "GPU",
        "value": "1"
      }
    ],
    "jobRoleArn": "arn:aws:iam::123456789012:role/runner",
    "executionRoleArn": "arn:aws:iam::123456789012:role/runner"
  }
}'

aws batch submit-job --cli-input-json '{
  "jobName": "tickets-RUNID01234",
  "jobQueue": "gpu-spot",
  "jobDefinition": "tickets-RUNID01234"
}'
