// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"fmt"
	"strings"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apiserver/pkg/registry/rest"
)

// What `kubectl get` shows: of an event what it says, of a workload more than name and age.
type table struct{ rest.TableConvertor }

func tables(resource schema.GroupResource) rest.TableConvertor {
	plain := rest.NewDefaultTableConvertor(resource)
	if resource.Resource == "daemonsets" || resource.Resource == "deployments" {
		return table{plain}
	}
	if resource.Resource == "events" {
		return eventTable{}
	}
	return plain
}

func counts(obj runtime.Object) (ready, desired int32) {
	switch o := obj.(type) {
	case *appsv1.DaemonSet:
		return o.Status.NumberReady, o.Status.DesiredNumberScheduled
	case *appsv1.Deployment:
		return o.Status.ReadyReplicas, *o.Spec.Replicas
	}
	return 0, 0
}

func (t table) ConvertToTable(ctx context.Context, obj, options runtime.Object) (*metav1.Table, error) {
	out, err := t.TableConvertor.ConvertToTable(ctx, obj, options)
	if err != nil {
		return nil, err
	}
	columns := []metav1.TableColumnDefinition{}
	for i, c := range out.ColumnDefinitions {
		columns = append(columns, c)
		if i == 0 {
			columns = append(columns, metav1.TableColumnDefinition{Name: "Ready", Type: "string", Description: "ready pods of those wanted"})
		}
	}
	if len(out.ColumnDefinitions) > 0 {
		out.ColumnDefinitions = columns
	}
	items := []runtime.Object{obj}
	if meta.IsListType(obj) {
		if items, err = meta.ExtractList(obj); err != nil {
			return nil, err
		}
	}
	for i := range out.Rows {
		ready, desired := counts(items[i])
		cells := out.Rows[i].Cells
		out.Rows[i].Cells = append([]interface{}{cells[0], fmt.Sprintf("%d/%d", ready, desired)}, cells[1:]...)
	}
	return out, nil
}

type eventTable struct{}

func (eventTable) ConvertToTable(_ context.Context, obj, _ runtime.Object) (*metav1.Table, error) {
	out := &metav1.Table{}
	for _, name := range []string{"Type", "Reason", "Object", "Message"} {
		out.ColumnDefinitions = append(out.ColumnDefinitions, metav1.TableColumnDefinition{Name: name, Type: "string"})
	}
	items := []runtime.Object{obj}
	if meta.IsListType(obj) {
		var err error
		if items, err = meta.ExtractList(obj); err != nil {
			return nil, err
		}
		out.ListMeta = obj.(*corev1.EventList).ListMeta
	}
	for _, item := range items {
		e := item.(*corev1.Event)
		out.Rows = append(out.Rows, metav1.TableRow{Object: runtime.RawExtension{Object: item},
			Cells: []interface{}{e.Type, e.Reason, strings.ToLower(e.InvolvedObject.Kind) + "/" + e.InvolvedObject.Name, e.Message}})
	}
	return out, nil
}
