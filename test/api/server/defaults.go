// SPDX-License-Identifier: Apache-2.0

package main

import (
	"strings"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	schedulingv1 "k8s.io/api/scheduling/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/intstr"
)

// The defaults that the API server gives what an operator and its installation consist of. They matter: an object that was
// applied comes back with more in it than was sent.

func set[T any](p **T, value T) {
	if *p == nil {
		*p = &value
	}
}

func or[T comparable](p *T, value T) {
	var zero T
	if *p == zero {
		*p = value
	}
}

func addDefaults(scheme *runtime.Scheme) {
	scheme.AddTypeDefaultingFunc(&appsv1.DaemonSet{}, func(o interface{}) { defaultDaemonSet(o.(*appsv1.DaemonSet)) })
	scheme.AddTypeDefaultingFunc(&appsv1.Deployment{}, func(o interface{}) { defaultDeployment(o.(*appsv1.Deployment)) })
	scheme.AddTypeDefaultingFunc(&corev1.Pod{}, func(o interface{}) {
		spec := &o.(*corev1.Pod).Spec
		set(&spec.EnableServiceLinks, true)
		defaultPodSpec(spec)
	})
	scheme.AddTypeDefaultingFunc(&corev1.Service{}, func(o interface{}) {
		spec := &o.(*corev1.Service).Spec
		or(&spec.SessionAffinity, corev1.ServiceAffinityNone)
		or(&spec.Type, corev1.ServiceTypeClusterIP)
		for i := range spec.Ports {
			p := &spec.Ports[i]
			or(&p.Protocol, corev1.ProtocolTCP)
			if p.TargetPort == (intstr.IntOrString{}) {
				p.TargetPort = intstr.FromInt32(p.Port)
			}
		}
	})
	scheme.AddTypeDefaultingFunc(&corev1.Secret{}, func(o interface{}) { or(&o.(*corev1.Secret).Type, corev1.SecretTypeOpaque) })
	scheme.AddTypeDefaultingFunc(&schedulingv1.PriorityClass{}, func(o interface{}) {
		set(&o.(*schedulingv1.PriorityClass).PreemptionPolicy, corev1.PreemptLowerPriority)
	})
	scheme.AddTypeDefaultingFunc(&rbacv1.RoleBinding{}, func(o interface{}) {
		b := o.(*rbacv1.RoleBinding)
		or(&b.RoleRef.APIGroup, rbacv1.GroupName)
		defaultSubjects(b.Subjects)
	})
	scheme.AddTypeDefaultingFunc(&rbacv1.ClusterRoleBinding{}, func(o interface{}) {
		b := o.(*rbacv1.ClusterRoleBinding)
		or(&b.RoleRef.APIGroup, rbacv1.GroupName)
		defaultSubjects(b.Subjects)
	})
}

func defaultSubjects(subjects []rbacv1.Subject) {
	for i := range subjects {
		if subjects[i].Kind != rbacv1.ServiceAccountKind {
			or(&subjects[i].APIGroup, rbacv1.GroupName)
		}
	}
}

func defaultDaemonSet(d *appsv1.DaemonSet) {
	strategy := &d.Spec.UpdateStrategy
	or(&strategy.Type, appsv1.RollingUpdateDaemonSetStrategyType)
	if strategy.Type == appsv1.RollingUpdateDaemonSetStrategyType {
		set(&strategy.RollingUpdate, appsv1.RollingUpdateDaemonSet{})
		set(&strategy.RollingUpdate.MaxUnavailable, intstr.FromInt32(1))
		set(&strategy.RollingUpdate.MaxSurge, intstr.FromInt32(0))
	}
	set(&d.Spec.RevisionHistoryLimit, 10)
	defaultPodSpec(&d.Spec.Template.Spec)
}

func defaultDeployment(d *appsv1.Deployment) {
	set(&d.Spec.Replicas, 1)
	strategy := &d.Spec.Strategy
	or(&strategy.Type, appsv1.RollingUpdateDeploymentStrategyType)
	if strategy.Type == appsv1.RollingUpdateDeploymentStrategyType {
		set(&strategy.RollingUpdate, appsv1.RollingUpdateDeployment{})
		set(&strategy.RollingUpdate.MaxUnavailable, intstr.FromString("25%"))
		set(&strategy.RollingUpdate.MaxSurge, intstr.FromString("25%"))
	}
	set(&d.Spec.RevisionHistoryLimit, 10)
	set(&d.Spec.ProgressDeadlineSeconds, 600)
	defaultPodSpec(&d.Spec.Template.Spec)
}

func defaultPodSpec(s *corev1.PodSpec) {
	or(&s.DNSPolicy, corev1.DNSClusterFirst)
	or(&s.RestartPolicy, corev1.RestartPolicyAlways)
	or(&s.SchedulerName, corev1.DefaultSchedulerName)
	set(&s.TerminationGracePeriodSeconds, int64(corev1.DefaultTerminationGracePeriodSeconds))
	set(&s.SecurityContext, corev1.PodSecurityContext{})
	or(&s.DeprecatedServiceAccount, s.ServiceAccountName)
	for i := range s.InitContainers {
		defaultContainer(&s.InitContainers[i], s.HostNetwork)
	}
	for i := range s.Containers {
		defaultContainer(&s.Containers[i], s.HostNetwork)
	}
	for i := range s.Volumes {
		v := &s.Volumes[i].VolumeSource
		switch {
		case v.Secret != nil:
			set(&v.Secret.DefaultMode, int32(corev1.SecretVolumeSourceDefaultMode))
		case v.ConfigMap != nil:
			set(&v.ConfigMap.DefaultMode, int32(corev1.ConfigMapVolumeSourceDefaultMode))
		case v.DownwardAPI != nil:
			set(&v.DownwardAPI.DefaultMode, int32(corev1.DownwardAPIVolumeSourceDefaultMode))
		case v.Projected != nil:
			set(&v.Projected.DefaultMode, int32(corev1.ProjectedVolumeSourceDefaultMode))
		case v.HostPath != nil:
			set(&v.HostPath.Type, corev1.HostPathUnset)
		case *v == (corev1.VolumeSource{}):
			v.EmptyDir = &corev1.EmptyDirVolumeSource{}
		}
	}
}

func defaultContainer(c *corev1.Container, hostNetwork bool) {
	or(&c.TerminationMessagePath, corev1.TerminationMessagePathDefault)
	or(&c.TerminationMessagePolicy, corev1.TerminationMessageReadFile)
	if c.ImagePullPolicy == "" {
		c.ImagePullPolicy = corev1.PullIfNotPresent
		name := c.Image[strings.LastIndex(c.Image, "/")+1:]
		if !strings.Contains(name, "@") && (!strings.Contains(name, ":") || strings.HasSuffix(name, ":latest")) {
			c.ImagePullPolicy = corev1.PullAlways
		}
	}
	for i := range c.Ports {
		or(&c.Ports[i].Protocol, corev1.ProtocolTCP)
		if hostNetwork {
			or(&c.Ports[i].HostPort, c.Ports[i].ContainerPort)
		}
	}
	for _, p := range []*corev1.Probe{c.LivenessProbe, c.ReadinessProbe, c.StartupProbe} {
		if p == nil {
			continue
		}
		or(&p.TimeoutSeconds, 1)
		or(&p.PeriodSeconds, 10)
		or(&p.SuccessThreshold, 1)
		or(&p.FailureThreshold, 3)
		if p.HTTPGet != nil {
			or(&p.HTTPGet.Scheme, corev1.URISchemeHTTP)
			or(&p.HTTPGet.Path, "/")
		}
	}
	for i := range c.Env {
		if from := c.Env[i].ValueFrom; from != nil && from.FieldRef != nil {
			or(&from.FieldRef.APIVersion, "v1")
		}
	}
}
