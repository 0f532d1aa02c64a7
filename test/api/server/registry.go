// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"reflect"
	"strings"

	appsv1 "k8s.io/api/apps/v1"
	authorizationv1 "k8s.io/api/authorization/v1"
	coordinationv1 "k8s.io/api/coordination/v1"
	corev1 "k8s.io/api/core/v1"
	eventsv1 "k8s.io/api/events/v1"
	networkingv1 "k8s.io/api/networking/v1"
	policyv1 "k8s.io/api/policy/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	schedulingv1 "k8s.io/api/scheduling/v1"
	apiequality "k8s.io/apimachinery/pkg/api/equality"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/conversion"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/runtime/serializer"
	"k8s.io/apimachinery/pkg/util/validation/field"
	"k8s.io/apiserver/pkg/registry/generic"
	genericregistry "k8s.io/apiserver/pkg/registry/generic/registry"
	"k8s.io/apiserver/pkg/registry/rest"
	genericapiserver "k8s.io/apiserver/pkg/server"
	genericoptions "k8s.io/apiserver/pkg/server/options"
	"k8s.io/apiserver/pkg/storage/names"
	"sigs.k8s.io/structured-merge-diff/v6/fieldpath"
)

// A kind that is served. Its stored form is also its internal one: there is one version of each group.
type kind struct {
	group, resource string
	object, list    runtime.Object
	cluster         bool
	status          bool // has a status subresource
	initialStatus   bool // and keeps what is given at creation
	short           []string
	categories      []string
	validate        func(obj runtime.Object) field.ErrorList
	validateUpdate  func(obj, old runtime.Object) field.ErrorList
	prepare         func(obj runtime.Object)
	fields          func(obj runtime.Object) fields.Set
}

var all = []string{"all"}

var kinds = []kind{
	{resource: "namespaces", object: &corev1.Namespace{}, list: &corev1.NamespaceList{}, cluster: true, status: true, short: []string{"ns"}, prepare: activeNamespace},
	{resource: "nodes", object: &corev1.Node{}, list: &corev1.NodeList{}, cluster: true, status: true, initialStatus: true, short: []string{"no"}},
	{resource: "pods", object: &corev1.Pod{}, list: &corev1.PodList{}, status: true, short: []string{"po"}, categories: all,
		validate: validatePod, prepare: pendingPod, fields: podFields},
	{resource: "services", object: &corev1.Service{}, list: &corev1.ServiceList{}, status: true, short: []string{"svc"}, categories: all},
	{resource: "serviceaccounts", object: &corev1.ServiceAccount{}, list: &corev1.ServiceAccountList{}, short: []string{"sa"}},
	{resource: "configmaps", object: &corev1.ConfigMap{}, list: &corev1.ConfigMapList{}, short: []string{"cm"}},
	{resource: "secrets", object: &corev1.Secret{}, list: &corev1.SecretList{}, prepare: plainSecret},
	{resource: "events", object: &corev1.Event{}, list: &corev1.EventList{}, short: []string{"ev"}, validate: validateEvent, validateUpdate: validateEventUpdate, fields: eventFields},
	{group: "apps", resource: "daemonsets", object: &appsv1.DaemonSet{}, list: &appsv1.DaemonSetList{}, status: true, short: []string{"ds"}, categories: all,
		validate: validateDaemonSet, validateUpdate: validateDaemonSetUpdate},
	{group: "apps", resource: "deployments", object: &appsv1.Deployment{}, list: &appsv1.DeploymentList{}, status: true, short: []string{"deploy"}, categories: all,
		validate: validateDeployment, validateUpdate: validateDeploymentUpdate},
	{group: "apps", resource: "replicasets", object: &appsv1.ReplicaSet{}, list: &appsv1.ReplicaSetList{}, status: true, short: []string{"rs"}, categories: all},
	{group: "coordination.k8s.io", resource: "leases", object: &coordinationv1.Lease{}, list: &coordinationv1.LeaseList{}, validate: validateLease},
	{group: "rbac.authorization.k8s.io", resource: "roles", object: &rbacv1.Role{}, list: &rbacv1.RoleList{}},
	{group: "rbac.authorization.k8s.io", resource: "rolebindings", object: &rbacv1.RoleBinding{}, list: &rbacv1.RoleBindingList{}, validate: validateBinding, validateUpdate: validateBindingUpdate},
	{group: "rbac.authorization.k8s.io", resource: "clusterroles", object: &rbacv1.ClusterRole{}, list: &rbacv1.ClusterRoleList{}, cluster: true},
	{group: "rbac.authorization.k8s.io", resource: "clusterrolebindings", object: &rbacv1.ClusterRoleBinding{}, list: &rbacv1.ClusterRoleBindingList{}, cluster: true,
		validate: validateBinding, validateUpdate: validateBindingUpdate},
	{group: "policy", resource: "poddisruptionbudgets", object: &policyv1.PodDisruptionBudget{}, list: &policyv1.PodDisruptionBudgetList{}, status: true, short: []string{"pdb"}},
	{group: "networking.k8s.io", resource: "networkpolicies", object: &networkingv1.NetworkPolicy{}, list: &networkingv1.NetworkPolicyList{}, short: []string{"netpol"}},
	{group: "scheduling.k8s.io", resource: "priorityclasses", object: &schedulingv1.PriorityClass{}, list: &schedulingv1.PriorityClassList{}, cluster: true, short: []string{"pc"}},
}

var (
	scheme = runtime.NewScheme()
	codecs = serializer.NewCodecFactory(scheme)
)

const events = "events.k8s.io"

func must(err error) {
	if err != nil {
		panic(err)
	}
}

func init() {
	metav1.AddToGroupVersion(scheme, schema.GroupVersion{Version: "v1"})
	for _, add := range []func(*runtime.Scheme) error{corev1.AddToScheme, appsv1.AddToScheme, coordinationv1.AddToScheme, rbacv1.AddToScheme,
		policyv1.AddToScheme, networkingv1.AddToScheme, schedulingv1.AddToScheme, eventsv1.AddToScheme, authorizationv1.AddToScheme} {
		must(add(scheme))
	}
	for _, k := range kinds {
		scheme.AddKnownTypes(schema.GroupVersion{Group: k.group, Version: runtime.APIVersionInternal}, k.object, k.list)
		selectable := k
		must(scheme.AddFieldLabelConversionFunc(k.gvk(), func(label, value string) (string, string, error) {
			return selectable.selectable(label, value)
		}))
	}
	scheme.AddKnownTypes(schema.GroupVersion{Group: "authorization.k8s.io", Version: runtime.APIVersionInternal},
		&authorizationv1.SelfSubjectAccessReview{}, &authorizationv1.SubjectAccessReview{})
	// As in Kubernetes, the two events are one object in two forms; core/v1 is the stored one.
	scheme.AddKnownTypes(schema.GroupVersion{Group: events, Version: runtime.APIVersionInternal}, &corev1.Event{}, &corev1.EventList{})
	must(scheme.AddConversionFunc((*eventsv1.Event)(nil), (*corev1.Event)(nil), func(a, b interface{}, _ conversion.Scope) error {
		return eventFromV1(a.(*eventsv1.Event), b.(*corev1.Event))
	}))
	must(scheme.AddConversionFunc((*corev1.Event)(nil), (*eventsv1.Event)(nil), func(a, b interface{}, _ conversion.Scope) error {
		return eventToV1(a.(*corev1.Event), b.(*eventsv1.Event))
	}))
	must(scheme.AddConversionFunc((*corev1.EventList)(nil), (*eventsv1.EventList)(nil), func(a, b interface{}, _ conversion.Scope) error {
		in, out := a.(*corev1.EventList), b.(*eventsv1.EventList)
		out.ListMeta = in.ListMeta
		out.Items = make([]eventsv1.Event, len(in.Items))
		for i := range in.Items {
			must(eventToV1(&in.Items[i], &out.Items[i]))
		}
		return nil
	}))
	addDefaults(scheme)
	// With one Go type for both forms, an object says its kind or does not, by the way it went; else applying what is already
	// there would be a change.
	must(apiequality.Semantic.AddFunc(func(_, _ metav1.TypeMeta) bool { return true }))
}

func eventFromV1(in *eventsv1.Event, out *corev1.Event) error {
	out.ObjectMeta, out.EventTime = in.ObjectMeta, in.EventTime
	if in.Series != nil {
		out.Series = &corev1.EventSeries{Count: in.Series.Count, LastObservedTime: in.Series.LastObservedTime}
	}
	out.ReportingController, out.ReportingInstance, out.Action, out.Reason = in.ReportingController, in.ReportingInstance, in.Action, in.Reason
	out.InvolvedObject, out.Related, out.Message, out.Type = in.Regarding, in.Related, in.Note, in.Type
	out.Source, out.FirstTimestamp, out.LastTimestamp, out.Count = in.DeprecatedSource, in.DeprecatedFirstTimestamp, in.DeprecatedLastTimestamp, in.DeprecatedCount
	return nil
}

func eventToV1(in *corev1.Event, out *eventsv1.Event) error {
	out.ObjectMeta, out.EventTime = in.ObjectMeta, in.EventTime
	if in.Series != nil {
		out.Series = &eventsv1.EventSeries{Count: in.Series.Count, LastObservedTime: in.Series.LastObservedTime}
	}
	out.ReportingController, out.ReportingInstance, out.Action, out.Reason = in.ReportingController, in.ReportingInstance, in.Action, in.Reason
	out.Regarding, out.Related, out.Note, out.Type = in.InvolvedObject, in.Related, in.Message, in.Type
	out.DeprecatedSource, out.DeprecatedFirstTimestamp, out.DeprecatedLastTimestamp, out.DeprecatedCount = in.Source, in.FirstTimestamp, in.LastTimestamp, in.Count
	return nil
}

func (k *kind) name() string { return reflect.TypeOf(k.object).Elem().Name() }

func (k *kind) gvk() schema.GroupVersionKind {
	return schema.GroupVersionKind{Group: k.group, Version: "v1", Kind: k.name()}
}

func (k *kind) attributes(obj runtime.Object) (labels.Set, fields.Set, error) {
	m, err := meta.Accessor(obj)
	if err != nil {
		return nil, nil, err
	}
	set := fields.Set{}
	if k.fields != nil {
		set = k.fields(obj)
	}
	set["metadata.name"] = m.GetName()
	if !k.cluster {
		set["metadata.namespace"] = m.GetNamespace()
	}
	return m.GetLabels(), set, nil
}

func (k *kind) selectable(label, value string) (string, string, error) {
	_, set, _ := k.attributes(k.object.DeepCopyObject())
	if _, ok := set[label]; ok {
		return label, value, nil
	}
	return "", "", field.Invalid(field.NewPath("fieldSelector"), label, "field label not supported")
}

// ---- strategies: what happens to an object on its way in ----

type strategy struct {
	runtime.ObjectTyper
	names.NameGenerator
	*kind
	ofStatus bool
}

func part(obj runtime.Object, name string) reflect.Value {
	return reflect.ValueOf(obj).Elem().FieldByName(name)
}

func (s strategy) NamespaceScoped() bool                                     { return !s.cluster }
func (s strategy) AllowCreateOnUpdate() bool                                 { return s.resource == "leases" || s.resource == "events" }
func (s strategy) AllowUnconditionalUpdate() bool                            { return s.resource != "leases" }
func (s strategy) Canonicalize(runtime.Object)                               {}
func (s strategy) WarningsOnCreate(context.Context, runtime.Object) []string { return nil }
func (s strategy) WarningsOnUpdate(context.Context, runtime.Object, runtime.Object) []string {
	return nil
}

func (s strategy) PrepareForCreate(_ context.Context, obj runtime.Object) {
	m, _ := meta.Accessor(obj)
	if part(obj, "Spec").IsValid() && s.status {
		m.SetGeneration(1)
	}
	if s.status && !s.initialStatus {
		part(obj, "Status").SetZero()
	}
	if s.prepare != nil {
		s.prepare(obj)
	}
}

func (s strategy) PrepareForUpdate(_ context.Context, obj, old runtime.Object) {
	if s.ofStatus {
		part(obj, "Spec").Set(part(old, "Spec"))
		return
	}
	if !s.status {
		return
	}
	part(obj, "Status").Set(part(old, "Status"))
	if !apiequality.Semantic.DeepEqual(part(obj, "Spec").Interface(), part(old, "Spec").Interface()) {
		m, _ := meta.Accessor(obj)
		before, _ := meta.Accessor(old)
		m.SetGeneration(before.GetGeneration() + 1)
	}
}

func (s strategy) Validate(_ context.Context, obj runtime.Object) field.ErrorList {
	errs := validateMeta(s.kind, obj)
	if s.validate != nil {
		errs = append(errs, s.validate(obj)...)
	}
	return errs
}

func (s strategy) ValidateUpdate(_ context.Context, obj, old runtime.Object) field.ErrorList {
	errs := validateMetaUpdate(obj, old)
	if s.ofStatus {
		return append(errs, validateStatus(obj)...)
	}
	if s.validate != nil {
		errs = append(errs, s.validate(obj)...)
	}
	if s.validateUpdate != nil {
		errs = append(errs, s.validateUpdate(obj, old)...)
	}
	return errs
}

func (s strategy) GetResetFields() map[fieldpath.APIVersion]*fieldpath.Set {
	reset := "status"
	if s.ofStatus {
		reset = "spec"
	}
	version := schema.GroupVersion{Group: s.group, Version: "v1"}.String()
	return map[fieldpath.APIVersion]*fieldpath.Set{fieldpath.APIVersion(version): fieldpath.NewSet(fieldpath.MakePathOrDie(reset))}
}

// ---- storage ----

type storage struct {
	*genericregistry.Store
	kind *kind
}

func (s *storage) ShortNames() []string { return s.kind.short }
func (s *storage) Categories() []string { return s.kind.categories }

type statusStorage struct{ store *genericregistry.Store }

func (s *statusStorage) New() runtime.Object { return s.store.New() }
func (s *statusStorage) Destroy()            {}
func (s *statusStorage) Get(ctx context.Context, name string, options *metav1.GetOptions) (runtime.Object, error) {
	return s.store.Get(ctx, name, options)
}
func (s *statusStorage) Update(ctx context.Context, name string, info rest.UpdatedObjectInfo, create rest.ValidateObjectFunc,
	update rest.ValidateObjectUpdateFunc, _ bool, options *metav1.UpdateOptions) (runtime.Object, bool, error) {
	return s.store.Update(ctx, name, info, create, update, false, options)
}
func (s *statusStorage) GetResetFields() map[fieldpath.APIVersion]*fieldpath.Set {
	return s.store.GetResetFields()
}
func (s *statusStorage) ConvertToTable(ctx context.Context, obj, options runtime.Object) (*metav1.Table, error) {
	return s.store.ConvertToTable(ctx, obj, options)
}

func newStorage(k *kind, etcd *genericoptions.EtcdOptions) (*storage, *statusStorage, error) {
	backend := etcd.StorageConfig
	backend.Codec = codecs.LegacyCodec(schema.GroupVersion{Group: k.group, Version: "v1"})
	getter := etcd.CreateRESTOptionsGetter(&genericoptions.SimpleStorageFactory{StorageConfig: backend}, nil)
	plural := schema.GroupResource{Group: k.group, Resource: k.resource}
	st := strategy{scheme, names.SimpleNameGenerator, k, false}
	store := &genericregistry.Store{
		NewFunc: func() runtime.Object {
			return reflect.New(reflect.TypeOf(k.object).Elem()).Interface().(runtime.Object)
		},
		NewListFunc:               func() runtime.Object { return reflect.New(reflect.TypeOf(k.list).Elem()).Interface().(runtime.Object) },
		DefaultQualifiedResource:  plural,
		SingularQualifiedResource: schema.GroupResource{Group: k.group, Resource: strings.ToLower(k.name())},
		CreateStrategy:            st,
		UpdateStrategy:            st,
		DeleteStrategy:            st,
		TableConvertor:            tables(plural),
	}
	if k.status {
		store.ResetFieldsStrategy = st
	}
	if err := store.CompleteWithOptions(&generic.StoreOptions{RESTOptions: getter, AttrFunc: k.attributes}); err != nil {
		return nil, nil, err
	}
	if !k.status {
		return &storage{store, k}, nil, nil
	}
	ofStatus := *store
	sub := strategy{scheme, names.SimpleNameGenerator, k, true}
	ofStatus.UpdateStrategy, ofStatus.ResetFieldsStrategy = sub, sub
	return &storage{store, k}, &statusStorage{&ofStatus}, nil
}

func installBuiltIn(server *genericapiserver.GenericAPIServer, etcd *genericoptions.EtcdOptions) error {
	groups := map[string]map[string]rest.Storage{}
	order := []string{}
	add := func(group, resource string, s rest.Storage) {
		if groups[group] == nil {
			groups[group] = map[string]rest.Storage{}
			order = append(order, group)
		}
		groups[group][resource] = s
	}
	for i := range kinds {
		k := &kinds[i]
		main, status, err := newStorage(k, etcd)
		if err != nil {
			return err
		}
		add(k.group, k.resource, main)
		if status != nil {
			add(k.group, k.resource+"/status", status)
		}
		if k.resource == "events" {
			add(events, "events", &storage{main.Store, k})
		}
	}
	add("authorization.k8s.io", "selfsubjectaccessreviews", &accessReview{authorizer: server.Authorizer, self: true})
	add("authorization.k8s.io", "subjectaccessreviews", &accessReview{authorizer: server.Authorizer})
	named := []*genericapiserver.APIGroupInfo{}
	for _, group := range order {
		info := genericapiserver.NewDefaultAPIGroupInfo(group, scheme, metav1.ParameterCodec, codecs)
		info.VersionedResourcesStorageMap["v1"] = groups[group]
		if group == "" {
			if err := server.InstallLegacyAPIGroup("/api", &info); err != nil {
				return err
			}
			continue
		}
		named = append(named, &info)
	}
	return server.InstallAPIGroups(named...)
}
