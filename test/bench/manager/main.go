// SPDX-License-Identifier: Apache-2.0

// What an operator in Go is at the least: caches of the EbpfDumps and of the DaemonSet, a work queue, a lease, and a
// listener, of client-go as controller-runtime has them. It reconciles nothing; it is measured beside ours.
package main

import (
	"context"
	"fmt"
	"net/http"
	"os"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/dynamic/dynamicinformer"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/cache"
	"k8s.io/client-go/tools/clientcmd"
	"k8s.io/client-go/tools/leaderelection"
	"k8s.io/client-go/tools/leaderelection/resourcelock"
	"k8s.io/client-go/util/workqueue"
)

func check(err error) {
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func main() {
	namespace, address := os.Args[1], os.Args[2]
	config, err := clientcmd.BuildConfigFromFlags("", os.Getenv("KUBECONFIG"))
	check(err)
	client, err := kubernetes.NewForConfig(config)
	check(err)
	resources, err := dynamic.NewForConfig(config)
	check(err)

	queue := workqueue.NewTypedRateLimitingQueue(workqueue.DefaultTypedControllerRateLimiter[string]())
	add := func(object any) {
		if key, err := cache.DeletionHandlingMetaNamespaceKeyFunc(object); err == nil {
			queue.Add(key)
		}
	}
	handler := cache.ResourceEventHandlerFuncs{AddFunc: add, UpdateFunc: func(_, object any) { add(object) }, DeleteFunc: add}
	dumps := dynamicinformer.NewDynamicSharedInformerFactory(resources, 10*time.Hour)
	dump := dumps.ForResource(schema.GroupVersionResource{Group: "research.dynatrace.com", Version: "v1alpha1", Resource: "ebpfdumps"}).Informer()
	sets := informers.NewSharedInformerFactoryWithOptions(client, 10*time.Hour, informers.WithNamespace(namespace),
		informers.WithTweakListOptions(func(o *metav1.ListOptions) {
			o.FieldSelector = fields.OneTermEqualSelector("metadata.name", "ebpfdump-loader").String()
		}))
	set := sets.Apps().V1().DaemonSets().Informer()
	for _, informer := range []cache.SharedIndexInformer{dump, set} {
		_, err = informer.AddEventHandler(handler)
		check(err)
	}
	ctx := context.Background()
	dumps.Start(ctx.Done())
	sets.Start(ctx.Done())
	if !cache.WaitForCacheSync(ctx.Done(), dump.HasSynced, set.HasSynced) {
		os.Exit(1)
	}
	go func() {
		for {
			key, over := queue.Get()
			if over {
				return
			}
			queue.Forget(key)
			queue.Done(key)
		}
	}()
	leading := false
	http.HandleFunc("/metrics", func(w http.ResponseWriter, _ *http.Request) {
		fmt.Fprintf(w, "leading %t\nobjects %d\n", leading, len(dump.GetStore().ListKeys()))
	})
	go func() { check(http.ListenAndServe(address, nil)) }()
	leaderelection.RunOrDie(ctx, leaderelection.LeaderElectionConfig{
		Lock: &resourcelock.LeaseLock{LeaseMeta: metav1.ObjectMeta{Name: "go-manager", Namespace: namespace}, Client: client.CoordinationV1(),
			LockConfig: resourcelock.ResourceLockConfig{Identity: "go-manager"}},
		LeaseDuration: 15 * time.Second, RenewDeadline: 10 * time.Second, RetryPeriod: 2 * time.Second, ReleaseOnCancel: true,
		Callbacks: leaderelection.LeaderCallbacks{
			OnStartedLeading: func(context.Context) { leading = true; select {} },
			OnStoppedLeading: func() { os.Exit(1) },
		},
	})
}
