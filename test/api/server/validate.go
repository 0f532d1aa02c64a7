// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"strings"

	appsv1 "k8s.io/api/apps/v1"
	coordinationv1 "k8s.io/api/coordination/v1"
	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	apiequality "k8s.io/apimachinery/pkg/api/equality"
	"k8s.io/apimachinery/pkg/api/meta"
	"k8s.io/apimachinery/pkg/api/validation"
	"k8s.io/apimachinery/pkg/api/validation/path"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	metavalidation "k8s.io/apimachinery/pkg/apis/meta/v1/validation"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/sets"
	utilvalidation "k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"
)

// Of Kubernetes' validation, what an operator's objects can get wrong: each message as Kubernetes words it.

func validateMeta(k *kind, obj runtime.Object) field.ErrorList {
	name := validation.NameIsDNSSubdomain
	switch k.group + "/" + k.resource {
	case "/namespaces":
		name = validation.ValidateNamespaceName
	case "/services":
		name = validation.NameIsDNS1035Label
	}
	if k.group == rbacv1.GroupName {
		name = path.ValidatePathSegmentName
	}
	return validation.ValidateObjectMetaAccessor(accessor(obj), !k.cluster, name, field.NewPath("metadata"))
}

func validateMetaUpdate(obj, old runtime.Object) field.ErrorList {
	return validation.ValidateObjectMetaAccessorUpdate(accessor(obj), accessor(old), field.NewPath("metadata"))
}

func accessor(obj runtime.Object) metav1.Object {
	m, err := meta.Accessor(obj)
	must(err)
	return m
}

// ---- pods ----

func validatePodSpec(s *corev1.PodSpec, p *field.Path) field.ErrorList {
	errs := field.ErrorList{}
	volumes := sets.New[string]()
	for i, v := range s.Volumes {
		at := p.Child("volumes").Index(i)
		for _, msg := range utilvalidation.IsDNS1123Label(v.Name) {
			errs = append(errs, field.Invalid(at.Child("name"), v.Name, msg))
		}
		if volumes.Has(v.Name) {
			errs = append(errs, field.Duplicate(at.Child("name"), v.Name))
		}
		volumes.Insert(v.Name)
		if v.HostPath != nil && (v.HostPath.Path == "" || strings.Contains(v.HostPath.Path, "..")) {
			errs = append(errs, field.Invalid(at.Child("hostPath", "path"), v.HostPath.Path, "must be a path without '..'"))
		}
		if v.Secret != nil && v.Secret.SecretName == "" {
			errs = append(errs, field.Required(at.Child("secret", "secretName"), ""))
		}
	}
	names := sets.New[string]()
	if len(s.Containers) == 0 {
		errs = append(errs, field.Required(p.Child("containers"), ""))
	}
	for kind, list := range map[string][]corev1.Container{"initContainers": s.InitContainers, "containers": s.Containers} {
		for i := range list {
			errs = append(errs, validateContainer(&list[i], s, volumes, names, p.Child(kind).Index(i))...)
		}
	}
	return errs
}

func validateContainer(c *corev1.Container, s *corev1.PodSpec, volumes, names sets.Set[string], at *field.Path) field.ErrorList {
	errs := field.ErrorList{}
	for _, msg := range utilvalidation.IsDNS1123Label(c.Name) {
		errs = append(errs, field.Invalid(at.Child("name"), c.Name, msg))
	}
	if names.Has(c.Name) {
		errs = append(errs, field.Duplicate(at.Child("name"), c.Name))
	}
	names.Insert(c.Name)
	if strings.TrimSpace(c.Image) != c.Image || c.Image == "" {
		errs = append(errs, field.Required(at.Child("image"), ""))
	}
	mounts := sets.New[string]()
	privileged := c.SecurityContext != nil && c.SecurityContext.Privileged != nil && *c.SecurityContext.Privileged
	for i, m := range c.VolumeMounts {
		mount := at.Child("volumeMounts").Index(i)
		if !volumes.Has(m.Name) {
			errs = append(errs, field.NotFound(mount.Child("name"), m.Name))
		}
		if m.MountPath == "" {
			errs = append(errs, field.Required(mount.Child("mountPath"), ""))
		} else if mounts.Has(m.MountPath) {
			errs = append(errs, field.Invalid(mount.Child("mountPath"), m.MountPath, "must be unique"))
		}
		mounts.Insert(m.MountPath)
		if m.MountPropagation != nil && *m.MountPropagation == corev1.MountPropagationBidirectional && !privileged {
			errs = append(errs, field.Forbidden(mount.Child("mountPropagation"), "Bidirectional mount propagation is available only to privileged containers"))
		}
	}
	for i, e := range c.Env {
		if e.Name == "" || strings.ContainsRune(e.Name, '=') {
			errs = append(errs, field.Invalid(at.Child("env").Index(i).Child("name"), e.Name, "a valid environment variable name is required"))
		}
		if e.Value != "" && e.ValueFrom != nil {
			errs = append(errs, field.Invalid(at.Child("env").Index(i).Child("valueFrom"), "", "may not be specified when `value` is not empty"))
		}
	}
	ports := sets.New[string]()
	for i, p := range c.Ports {
		port := at.Child("ports").Index(i)
		if p.ContainerPort < 1 || p.ContainerPort > 65535 {
			errs = append(errs, field.Invalid(port.Child("containerPort"), p.ContainerPort, utilvalidation.InclusiveRangeError(1, 65535)))
		}
		if s.HostNetwork && p.HostPort != p.ContainerPort {
			errs = append(errs, field.Invalid(port.Child("hostPort"), p.HostPort, "must match `containerPort` when `hostNetwork` is true"))
		}
		if p.Name != "" {
			for _, msg := range utilvalidation.IsValidPortName(p.Name) {
				errs = append(errs, field.Invalid(port.Child("name"), p.Name, msg))
			}
			if ports.Has(p.Name) {
				errs = append(errs, field.Duplicate(port.Child("name"), p.Name))
			}
			ports.Insert(p.Name)
		}
	}
	if sc := c.SecurityContext; sc != nil && sc.AllowPrivilegeEscalation != nil && !*sc.AllowPrivilegeEscalation {
		if privileged {
			errs = append(errs, field.Invalid(at.Child("securityContext"), "", "cannot set `allowPrivilegeEscalation` to false and `privileged` to true"))
		}
		if sc.Capabilities != nil {
			for _, add := range sc.Capabilities.Add {
				if add == "CAP_SYS_ADMIN" {
					errs = append(errs, field.Invalid(at.Child("securityContext"), "", "cannot set `allowPrivilegeEscalation` to false and `capabilities.Add` CAP_SYS_ADMIN"))
				}
			}
		}
	}
	for name, request := range c.Resources.Requests {
		if limit, ok := c.Resources.Limits[name]; ok && request.Cmp(limit) > 0 {
			errs = append(errs, field.Invalid(at.Child("resources", "requests"), request.String(), fmt.Sprintf("must be less than or equal to %s limit of %s", name, limit.String())))
		}
	}
	return errs
}

func validatePod(obj runtime.Object) field.ErrorList {
	return validatePodSpec(&obj.(*corev1.Pod).Spec, field.NewPath("spec"))
}

func pendingPod(obj runtime.Object) { obj.(*corev1.Pod).Status.Phase = corev1.PodPending }

func podFields(obj runtime.Object) fields.Set {
	p := obj.(*corev1.Pod)
	return fields.Set{"spec.nodeName": p.Spec.NodeName, "status.phase": string(p.Status.Phase), "spec.restartPolicy": string(p.Spec.RestartPolicy)}
}

func activeNamespace(obj runtime.Object) {
	obj.(*corev1.Namespace).Status.Phase = corev1.NamespaceActive
}

func plainSecret(obj runtime.Object) {
	s := obj.(*corev1.Secret)
	for name, value := range s.StringData {
		if s.Data == nil {
			s.Data = map[string][]byte{}
		}
		s.Data[name] = []byte(value)
	}
	s.StringData = nil
}

// ---- workloads ----

func validateTemplate(selector *metav1.LabelSelector, t *corev1.PodTemplateSpec) field.ErrorList {
	spec := field.NewPath("spec")
	errs := metavalidation.ValidateLabelSelector(selector, metavalidation.LabelSelectorValidationOptions{}, spec.Child("selector"))
	if s, err := metav1.LabelSelectorAsSelector(selector); err == nil && !s.Matches(labels.Set(t.Labels)) {
		errs = append(errs, field.Invalid(spec.Child("template", "metadata", "labels"), t.Labels, "`selector` does not match template `labels`"))
	}
	if selector != nil && len(selector.MatchLabels)+len(selector.MatchExpressions) == 0 {
		errs = append(errs, field.Invalid(spec.Child("selector"), selector, "empty selector is invalid"))
	}
	if t.Spec.RestartPolicy != corev1.RestartPolicyAlways {
		errs = append(errs, field.NotSupported(spec.Child("template", "spec", "restartPolicy"), t.Spec.RestartPolicy, []corev1.RestartPolicy{corev1.RestartPolicyAlways}))
	}
	errs = append(errs, metavalidation.ValidateLabels(t.Labels, spec.Child("template", "metadata", "labels"))...)
	return append(errs, validatePodSpec(&t.Spec, spec.Child("template", "spec"))...)
}

func validateDaemonSet(obj runtime.Object) field.ErrorList {
	d := obj.(*appsv1.DaemonSet)
	errs := validateTemplate(d.Spec.Selector, &d.Spec.Template)
	rolling := d.Spec.UpdateStrategy.RollingUpdate
	if rolling != nil && rolling.MaxUnavailable != nil && rolling.MaxUnavailable.IntValue() == 0 && rolling.MaxUnavailable.StrVal == "" &&
		rolling.MaxSurge != nil && rolling.MaxSurge.IntValue() == 0 {
		errs = append(errs, field.Required(field.NewPath("spec", "updateStrategy", "rollingUpdate", "maxUnavailable"), "cannot be 0 when maxSurge is 0"))
	}
	return errs
}

func validateDaemonSetUpdate(obj, old runtime.Object) field.ErrorList {
	return validation.ValidateImmutableField(obj.(*appsv1.DaemonSet).Spec.Selector, old.(*appsv1.DaemonSet).Spec.Selector, field.NewPath("spec", "selector"))
}

func validateDeployment(obj runtime.Object) field.ErrorList {
	d := obj.(*appsv1.Deployment)
	return validateTemplate(d.Spec.Selector, &d.Spec.Template)
}

func validateDeploymentUpdate(obj, old runtime.Object) field.ErrorList {
	return validation.ValidateImmutableField(obj.(*appsv1.Deployment).Spec.Selector, old.(*appsv1.Deployment).Spec.Selector, field.NewPath("spec", "selector"))
}

func validateStatus(obj runtime.Object) field.ErrorList {
	errs := field.ErrorList{}
	if d, ok := obj.(*appsv1.DaemonSet); ok {
		p := field.NewPath("status")
		for name, n := range map[string]int32{"currentNumberScheduled": d.Status.CurrentNumberScheduled, "numberReady": d.Status.NumberReady,
			"desiredNumberScheduled": d.Status.DesiredNumberScheduled, "numberAvailable": d.Status.NumberAvailable, "numberUnavailable": d.Status.NumberUnavailable} {
			errs = append(errs, validation.ValidateNonnegativeField(int64(n), p.Child(name))...)
		}
	}
	return errs
}

// ---- leases, events, bindings ----

func validateLease(obj runtime.Object) field.ErrorList {
	errs := field.ErrorList{}
	s := &obj.(*coordinationv1.Lease).Spec
	p := field.NewPath("spec")
	if s.LeaseDurationSeconds != nil && *s.LeaseDurationSeconds <= 0 {
		errs = append(errs, field.Invalid(p.Child("leaseDurationSeconds"), *s.LeaseDurationSeconds, "must be greater than 0"))
	}
	if s.LeaseTransitions != nil && *s.LeaseTransitions < 0 {
		errs = append(errs, field.Invalid(p.Child("leaseTransitions"), *s.LeaseTransitions, "must be greater than or equal to 0"))
	}
	return errs
}

func validateEvent(obj runtime.Object) field.ErrorList {
	e := obj.(*corev1.Event)
	errs := field.ErrorList{}
	in := e.InvolvedObject.Namespace
	if in == "" {
		in = metav1.NamespaceDefault
	}
	if e.Namespace != in {
		errs = append(errs, field.Invalid(field.NewPath("involvedObject", "namespace"), e.InvolvedObject.Namespace, "does not match event.namespace"))
	}
	// Only an event of events.k8s.io/v1 has a time of its own; that API is strict.
	if e.EventTime.IsZero() {
		return errs
	}
	for _, f := range []struct {
		name, value string
		limit       int
	}{{"reportingController", e.ReportingController, 0}, {"reportingInstance", e.ReportingInstance, 128}, {"action", e.Action, 128}, {"reason", e.Reason, 128}} {
		if f.value == "" {
			errs = append(errs, field.Required(field.NewPath(f.name), ""))
		} else if f.limit > 0 && len(f.value) > f.limit {
			errs = append(errs, field.Invalid(field.NewPath(f.name), "", fmt.Sprintf("can have at most %d characters", f.limit)))
		}
	}
	for _, msg := range utilvalidation.IsQualifiedName(e.ReportingController) {
		errs = append(errs, field.Invalid(field.NewPath("reportingController"), e.ReportingController, msg))
	}
	if len(e.Message) > 1024 {
		errs = append(errs, field.Invalid(field.NewPath("note"), "", "can have at most 1024 characters"))
	}
	if e.Type != corev1.EventTypeNormal && e.Type != corev1.EventTypeWarning {
		errs = append(errs, field.Invalid(field.NewPath("type"), e.Type, "has invalid value"))
	}
	if e.Series != nil && e.Series.Count < 2 {
		errs = append(errs, field.Invalid(field.NewPath("series.count"), "", "should be at least 2"))
	}
	if e.Count != 0 || !e.FirstTimestamp.IsZero() || !e.LastTimestamp.IsZero() || e.Source != (corev1.EventSource{}) {
		errs = append(errs, field.Invalid(field.NewPath("deprecatedSource"), "", "deprecated fields need to be unset"))
	}
	return errs
}

func validateEventUpdate(obj, old runtime.Object) field.ErrorList {
	e, before := obj.(*corev1.Event), old.(*corev1.Event)
	if e.EventTime.IsZero() {
		return nil
	}
	errs := field.ErrorList{}
	for name, pair := range map[string][2]interface{}{"regarding": {e.InvolvedObject, before.InvolvedObject}, "reason": {e.Reason, before.Reason},
		"action": {e.Action, before.Action}, "note": {e.Message, before.Message}, "type": {e.Type, before.Type},
		"eventTime": {e.EventTime, before.EventTime}, "reportingInstance": {e.ReportingInstance, before.ReportingInstance}} {
		if !apiequality.Semantic.DeepEqual(pair[0], pair[1]) {
			errs = append(errs, field.Invalid(field.NewPath(name), pair[0], "field is immutable"))
		}
	}
	return errs
}

func eventFields(obj runtime.Object) fields.Set {
	e := obj.(*corev1.Event)
	o := &e.InvolvedObject
	return fields.Set{"involvedObject.kind": o.Kind, "involvedObject.namespace": o.Namespace, "involvedObject.name": o.Name,
		"involvedObject.uid": string(o.UID), "involvedObject.apiVersion": o.APIVersion, "involvedObject.fieldPath": o.FieldPath,
		"involvedObject.resourceVersion": o.ResourceVersion, "regarding.kind": o.Kind, "regarding.namespace": o.Namespace,
		"regarding.name": o.Name, "regarding.uid": string(o.UID), "reason": e.Reason, "type": e.Type,
		"reportingComponent": e.ReportingController, "reportingController": e.ReportingController, "source": e.Source.Component}
}

func roleRef(obj runtime.Object) (rbacv1.RoleRef, []rbacv1.Subject) {
	if b, ok := obj.(*rbacv1.RoleBinding); ok {
		return b.RoleRef, b.Subjects
	}
	b := obj.(*rbacv1.ClusterRoleBinding)
	return b.RoleRef, b.Subjects
}

func validateBinding(obj runtime.Object) field.ErrorList {
	errs := field.ErrorList{}
	ref, subjects := roleRef(obj)
	if ref.Name == "" {
		errs = append(errs, field.Required(field.NewPath("roleRef", "name"), ""))
	}
	if _, cluster := obj.(*rbacv1.ClusterRoleBinding); ref.Kind != "ClusterRole" && (cluster || ref.Kind != "Role") {
		errs = append(errs, field.NotSupported(field.NewPath("roleRef", "kind"), ref.Kind, []string{"ClusterRole"}))
	}
	for i, s := range subjects {
		if _, cluster := obj.(*rbacv1.ClusterRoleBinding); cluster && s.Kind == rbacv1.ServiceAccountKind && s.Namespace == "" {
			errs = append(errs, field.Required(field.NewPath("subjects").Index(i).Child("namespace"), ""))
		}
	}
	return errs
}

func validateBindingUpdate(obj, old runtime.Object) field.ErrorList {
	ref, _ := roleRef(obj)
	before, _ := roleRef(old)
	if ref != before {
		return field.ErrorList{field.Invalid(field.NewPath("roleRef"), ref, "cannot change roleRef")}
	}
	return nil
}
