// SPDX-License-Identifier: Apache-2.0

// A Kubernetes API server for tests, of Kubernetes' own libraries as Debian packages them.
//
// What is the real thing: CustomResourceDefinitions (schemas, CEL, status, pruning, printer columns), the REST
// machinery with its storage in etcd (resource versions, list with paging, watch with bookmarks, preconditions, patches of
// each kind, server-side apply with the schemas generated from k8s.io/api, dry run, field validation), discovery, OpenAPI,
// admission by NamespaceLifecycle.
//
// What is this program's, since k8s.io/kubernetes is in no package: which built-in resources there are (registry.go), their
// defaults and the checks that matter to an operator (defaults.go, validate.go), RBAC (rbac.go). There are no controllers,
// no scheduler, no garbage collector and no Pod Security admission: tests play those.
package main

import (
	"fmt"
	"net"
	"os"
	"time"

	"github.com/spf13/cobra"
	"go.opentelemetry.io/otel/trace/noop"

	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	"k8s.io/apiextensions-apiserver/pkg/apiserver"
	"k8s.io/apiextensions-apiserver/pkg/cmd/server/options"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apiserver/pkg/authentication/authenticator"
	"k8s.io/apiserver/pkg/authentication/group"
	"k8s.io/apiserver/pkg/authentication/request/anonymous"
	"k8s.io/apiserver/pkg/authentication/request/bearertoken"
	"k8s.io/apiserver/pkg/authentication/request/union"
	"k8s.io/apiserver/pkg/authentication/token/tokenfile"
	"k8s.io/apiserver/pkg/authorization/authorizerfactory"
	authorizerunion "k8s.io/apiserver/pkg/authorization/union"
	"k8s.io/apiserver/pkg/endpoints/discovery/aggregated"
	openapinamer "k8s.io/apiserver/pkg/endpoints/openapi"
	genericapiserver "k8s.io/apiserver/pkg/server"
	genericoptions "k8s.io/apiserver/pkg/server/options"
	"k8s.io/apiserver/pkg/util/webhook"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes"
	"k8s.io/component-base/cli"

	openapi "ebpfdump/apiserver/openapi"
)

type settings struct {
	run       *genericoptions.ServerRunOptions
	etcd      *genericoptions.EtcdOptions
	serving   *genericoptions.SecureServingOptionsWithLoopback
	admission *genericoptions.AdmissionOptions
	tokens    string
}

func main() {
	defaults := genericoptions.NewRecommendedOptions("/registry", apiserver.Codecs.LegacyCodec(apiextensionsv1.SchemeGroupVersion))
	s := &settings{
		run:       genericoptions.NewServerRunOptions(),
		etcd:      defaults.Etcd,
		serving:   defaults.SecureServing,
		admission: defaults.Admission,
	}
	// Without their kinds these have nothing to do.
	s.admission.DisablePlugins = []string{"MutatingAdmissionWebhook", "ValidatingAdmissionWebhook",
		"ValidatingAdmissionPolicy", "MutatingAdmissionPolicy"}
	// There is nobody to take its finalizers away.
	s.etcd.EnableGarbageCollection = false
	ctx := genericapiserver.SetupSignalContext()
	cmd := &cobra.Command{
		Use:               "apiserver",
		Short:             "A Kubernetes API server for tests",
		SilenceUsage:      true,
		PersistentPreRunE: func(*cobra.Command, []string) error { return s.run.ComponentGlobalsRegistry.Set() },
		RunE: func(c *cobra.Command, _ []string) error {
			server, err := s.server()
			if err != nil {
				return err
			}
			return server.PrepareRun().RunWithContext(c.Context())
		},
	}
	cmd.SetContext(ctx)
	s.run.AddUniversalFlags(cmd.Flags())
	s.etcd.AddFlags(cmd.Flags())
	s.serving.AddFlags(cmd.Flags())
	cmd.Flags().StringVar(&s.tokens, "token-auth-file", "", "lines of: token,user,uid,\"group,group\"")
	os.Exit(cli.Run(cmd))
}

func (s *settings) server() (*genericapiserver.GenericAPIServer, error) {
	if err := s.run.Complete(); err != nil {
		return nil, err
	}
	if err := s.serving.MaybeDefaultWithSelfSignedCerts("localhost", nil, []net.IP{net.ParseIP("127.0.0.1")}); err != nil {
		return nil, err
	}
	config := genericapiserver.NewRecommendedConfig(apiserver.Codecs)
	if err := s.run.ApplyTo(&config.Config); err != nil {
		return nil, err
	}
	if err := s.etcd.ApplyTo(&config.Config); err != nil {
		return nil, err
	}
	if err := s.serving.ApplyTo(&config.SecureServing, &config.LoopbackClientConfig); err != nil {
		return nil, err
	}
	config.MergedResourceConfig = apiserver.DefaultAPIResourceConfigSource()
	config.BuildHandlerChainFunc = genericapiserver.DefaultBuildHandlerChain
	config.ClientConfig = config.LoopbackClientConfig
	client, err := kubernetes.NewForConfig(config.LoopbackClientConfig)
	if err != nil {
		return nil, err
	}
	dynamicClient, err := dynamic.NewForConfig(config.LoopbackClientConfig)
	if err != nil {
		return nil, err
	}
	config.SharedInformerFactory = informers.NewSharedInformerFactory(client, 10*time.Minute)
	if config.Authentication.Authenticator, err = authentication(s.tokens); err != nil {
		return nil, err
	}
	config.Authorization.Authorizer = authorizerunion.New(
		authorizerfactory.NewPrivilegedGroups("system:masters"), newRBAC(config.SharedInformerFactory))
	if err := s.admission.ApplyTo(&config.Config, config.SharedInformerFactory, client, dynamicClient,
		config.FeatureGate, config.EffectiveVersion); err != nil {
		return nil, err
	}
	namer := openapinamer.NewDefinitionNamer(apiserver.Scheme, scheme)
	config.OpenAPIConfig = genericapiserver.DefaultOpenAPIConfig(openapi.GetOpenAPIDefinitions, namer)
	config.OpenAPIV3Config = genericapiserver.DefaultOpenAPIV3Config(openapi.GetOpenAPIDefinitions, namer)

	extensions := &apiserver.Config{
		GenericConfig: config,
		ExtraConfig: apiserver.ExtraConfig{
			CRDRESTOptionsGetter: options.NewCRDRESTOptionsGetter(*s.etcd, config.ResourceTransformers, config.StorageObjectCountTracker),
			AuthResolverWrapper:  webhook.NewDefaultAuthenticationInfoResolverWrapper(nil, nil, config.LoopbackClientConfig, noop.NewTracerProvider()),
			MasterCount:          1,
		},
	}
	server, err := extensions.Complete().New(genericapiserver.NewEmptyDelegate())
	if err != nil {
		return nil, err
	}
	// An apiextensions server leaves this to the aggregator.
	discovery := aggregated.WrapAggregatedDiscoveryToHandler(server.GenericAPIServer.DiscoveryGroupManager,
		server.GenericAPIServer.AggregatedDiscoveryGroupManager, nil)
	server.GenericAPIServer.Handler.GoRestfulContainer.Add(discovery.GenerateWebService("/apis", metav1.APIGroupList{}))
	if err := installBuiltIn(server.GenericAPIServer, s.etcd); err != nil {
		return nil, fmt.Errorf("built-in resources: %w", err)
	}
	return server.GenericAPIServer, server.GenericAPIServer.AddPostStartHook("bootstrap", bootstrap(client))
}

func authentication(tokens string) (authenticator.Request, error) {
	all := []authenticator.Request{}
	if tokens != "" {
		known, err := tokenfile.NewCSV(tokens)
		if err != nil {
			return nil, err
		}
		all = append(all, group.NewAuthenticatedGroupAdder(bearertoken.New(known)))
	}
	return union.NewFailOnError(append(all, anonymous.NewAuthenticator(nil))...), nil
}
