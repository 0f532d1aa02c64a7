# SPDX-License-Identifier: Apache-2.0
# Generated: make bundle
FROM scratch
LABEL operators.operatorframework.io.bundle.mediatype.v1="registry+v1" \
      operators.operatorframework.io.bundle.manifests.v1="manifests/" \
      operators.operatorframework.io.bundle.metadata.v1="metadata/" \
      operators.operatorframework.io.bundle.package.v1="ebpfdump" \
      operators.operatorframework.io.bundle.channels.v1="candidate" \
      operators.operatorframework.io.bundle.channel.default.v1="candidate" \
      operators.operatorframework.io.test.mediatype.v1="scorecard+v1" \
      operators.operatorframework.io.test.config.v1="tests/scorecard/" \
      com.redhat.openshift.versions="v4.14"
COPY bundle/manifests /manifests/
COPY bundle/metadata /metadata/
COPY bundle/tests/scorecard /tests/scorecard/
