// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"fmt"
	"slices"
	"strings"

	authorizationv1 "k8s.io/api/authorization/v1"
	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apiserver/pkg/authentication/user"
	"k8s.io/apiserver/pkg/authorization/authorizer"
	"k8s.io/apiserver/pkg/endpoints/request"
	"k8s.io/apiserver/pkg/registry/rest"
	genericapiserver "k8s.io/apiserver/pkg/server"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes"
	listers "k8s.io/client-go/listers/rbac/v1"
)

// The rules of rbac.authorization.k8s.io/v1, as its API documents them. Aggregated roles are not put together: that is a
// controller's work.
type rbac struct {
	roles           listers.RoleLister
	bindings        listers.RoleBindingLister
	clusterRoles    listers.ClusterRoleLister
	clusterBindings listers.ClusterRoleBindingLister
}

func newRBAC(factory informers.SharedInformerFactory) *rbac {
	v1 := factory.Rbac().V1()
	return &rbac{v1.Roles().Lister(), v1.RoleBindings().Lister(), v1.ClusterRoles().Lister(), v1.ClusterRoleBindings().Lister()}
}

func has(list []string, value string) bool {
	return slices.Contains(list, "*") || slices.Contains(list, value)
}

func allowsPath(urls []string, path string) bool {
	for _, u := range urls {
		if u == "*" || u == path || strings.HasSuffix(u, "*") && strings.HasPrefix(path, strings.TrimSuffix(u, "*")) {
			return true
		}
	}
	return false
}

func allows(rule *rbacv1.PolicyRule, a authorizer.Attributes) bool {
	if !has(rule.Verbs, a.GetVerb()) {
		return false
	}
	if !a.IsResourceRequest() {
		return allowsPath(rule.NonResourceURLs, a.GetPath())
	}
	resource := a.GetResource()
	if a.GetSubresource() != "" {
		resource += "/" + a.GetSubresource()
	}
	return has(rule.APIGroups, a.GetAPIGroup()) &&
		(has(rule.Resources, resource) || a.GetSubresource() != "" && slices.Contains(rule.Resources, "*/"+a.GetSubresource())) &&
		(len(rule.ResourceNames) == 0 || slices.Contains(rule.ResourceNames, a.GetName()))
}

func isFor(subjects []rbacv1.Subject, who user.Info, namespace string) bool {
	for _, s := range subjects {
		switch s.Kind {
		case rbacv1.UserKind:
			if s.Name == who.GetName() {
				return true
			}
		case rbacv1.GroupKind:
			if slices.Contains(who.GetGroups(), s.Name) {
				return true
			}
		case rbacv1.ServiceAccountKind:
			in := s.Namespace
			if in == "" {
				in = namespace
			}
			if who.GetName() == "system:serviceaccount:"+in+":"+s.Name {
				return true
			}
		}
	}
	return false
}

func (r *rbac) rules(ref rbacv1.RoleRef, namespace string) []rbacv1.PolicyRule {
	if ref.Kind == "ClusterRole" {
		if role, err := r.clusterRoles.Get(ref.Name); err == nil {
			return role.Rules
		}
	} else if role, err := r.roles.Roles(namespace).Get(ref.Name); err == nil {
		return role.Rules
	}
	return nil
}

func anyAllows(rules []rbacv1.PolicyRule, a authorizer.Attributes) bool {
	return slices.ContainsFunc(rules, func(rule rbacv1.PolicyRule) bool { return allows(&rule, a) })
}

func (r *rbac) Authorize(_ context.Context, a authorizer.Attributes) (authorizer.Decision, string, error) {
	cluster, err := r.clusterBindings.List(labels.Everything())
	if err != nil {
		return authorizer.DecisionNoOpinion, "", err
	}
	for _, b := range cluster {
		if isFor(b.Subjects, a.GetUser(), "") && anyAllows(r.rules(b.RoleRef, ""), a) {
			return authorizer.DecisionAllow, "RBAC: by ClusterRoleBinding " + b.Name, nil
		}
	}
	if a.GetNamespace() == "" {
		return authorizer.DecisionNoOpinion, "", nil
	}
	local, err := r.bindings.RoleBindings(a.GetNamespace()).List(labels.Everything())
	if err != nil {
		return authorizer.DecisionNoOpinion, "", err
	}
	for _, b := range local {
		if isFor(b.Subjects, a.GetUser(), b.Namespace) && anyAllows(r.rules(b.RoleRef, b.Namespace), a) {
			return authorizer.DecisionAllow, "RBAC: by RoleBinding " + b.Name, nil
		}
	}
	return authorizer.DecisionNoOpinion, "", nil
}

// ---- kubectl auth can-i ----

type accessReview struct {
	authorizer authorizer.Authorizer
	self       bool
}

func (r *accessReview) NamespaceScoped() bool { return false }
func (r *accessReview) Destroy()              {}
func (r *accessReview) GetSingularName() string {
	if r.self {
		return "selfsubjectaccessreview"
	}
	return "subjectaccessreview"
}
func (r *accessReview) New() runtime.Object {
	if r.self {
		return &authorizationv1.SelfSubjectAccessReview{}
	}
	return &authorizationv1.SubjectAccessReview{}
}

func attributes(who user.Info, resource *authorizationv1.ResourceAttributes, path *authorizationv1.NonResourceAttributes) authorizer.Attributes {
	if resource == nil {
		if path == nil {
			path = &authorizationv1.NonResourceAttributes{}
		}
		return authorizer.AttributesRecord{User: who, Verb: path.Verb, Path: path.Path}
	}
	return authorizer.AttributesRecord{User: who, Verb: resource.Verb, Namespace: resource.Namespace, APIGroup: resource.Group,
		APIVersion: resource.Version, Resource: resource.Resource, Subresource: resource.Subresource, Name: resource.Name, ResourceRequest: true}
}

func (r *accessReview) decide(ctx context.Context, a authorizer.Attributes) authorizationv1.SubjectAccessReviewStatus {
	decision, reason, err := r.authorizer.Authorize(ctx, a)
	status := authorizationv1.SubjectAccessReviewStatus{Allowed: decision == authorizer.DecisionAllow, Reason: reason}
	if err != nil {
		status.EvaluationError = err.Error()
	}
	return status
}

func (r *accessReview) Create(ctx context.Context, obj runtime.Object, _ rest.ValidateObjectFunc, _ *metav1.CreateOptions) (runtime.Object, error) {
	if review, ok := obj.(*authorizationv1.SelfSubjectAccessReview); ok {
		who, found := request.UserFrom(ctx)
		if !found {
			return nil, apierrors.NewBadRequest("no user in the request")
		}
		review.Status = r.decide(ctx, attributes(who, review.Spec.ResourceAttributes, review.Spec.NonResourceAttributes))
		return review, nil
	}
	review := obj.(*authorizationv1.SubjectAccessReview)
	who := &user.DefaultInfo{Name: review.Spec.User, Groups: review.Spec.Groups}
	review.Status = r.decide(ctx, attributes(who, review.Spec.ResourceAttributes, review.Spec.NonResourceAttributes))
	return review, nil
}

// ---- what a new cluster has ----

var bootstrapRoles = map[string][]rbacv1.PolicyRule{
	"system:discovery": {{Verbs: []string{"get"}, NonResourceURLs: []string{"/api", "/api/*", "/apis", "/apis/*", "/healthz", "/livez", "/openapi",
		"/openapi/*", "/readyz", "/version", "/version/"}}},
	"system:basic-user":         {{Verbs: []string{"create"}, APIGroups: []string{"authorization.k8s.io"}, Resources: []string{"selfsubjectaccessreviews"}}},
	"system:public-info-viewer": {{Verbs: []string{"get"}, NonResourceURLs: []string{"/healthz", "/livez", "/readyz", "/version", "/version/"}}},
	"cluster-admin":             {{Verbs: []string{"*"}, APIGroups: []string{"*"}, Resources: []string{"*"}}, {Verbs: []string{"*"}, NonResourceURLs: []string{"*"}}},
}

func ignoreExisting(err error) error {
	if apierrors.IsAlreadyExists(err) {
		return nil
	}
	return err
}

func bootstrap(client kubernetes.Interface) genericapiserver.PostStartHookFunc {
	return func(hook genericapiserver.PostStartHookContext) error {
		ctx := hook.Context
		for _, name := range []string{"default", "kube-system", "kube-public"} {
			ns := &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: name}}
			if _, err := client.CoreV1().Namespaces().Create(ctx, ns, metav1.CreateOptions{}); ignoreExisting(err) != nil {
				return fmt.Errorf("namespace %s: %w", name, err)
			}
		}
		for name, rules := range bootstrapRoles {
			role := &rbacv1.ClusterRole{ObjectMeta: metav1.ObjectMeta{Name: name}, Rules: rules}
			if _, err := client.RbacV1().ClusterRoles().Create(ctx, role, metav1.CreateOptions{}); ignoreExisting(err) != nil {
				return err
			}
			groups := []rbacv1.Subject{{Kind: "Group", APIGroup: rbacv1.GroupName, Name: user.AllAuthenticated}}
			switch name {
			case "cluster-admin":
				continue
			case "system:public-info-viewer":
				groups = append(groups, rbacv1.Subject{Kind: "Group", APIGroup: rbacv1.GroupName, Name: user.AllUnauthenticated})
			}
			binding := &rbacv1.ClusterRoleBinding{ObjectMeta: metav1.ObjectMeta{Name: name}, Subjects: groups,
				RoleRef: rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "ClusterRole", Name: name}}
			if _, err := client.RbacV1().ClusterRoleBindings().Create(ctx, binding, metav1.CreateOptions{}); ignoreExisting(err) != nil {
				return err
			}
		}
		return nil
	}
}
