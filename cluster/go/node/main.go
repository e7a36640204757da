// One program with every part of a Kubernetes node that is written in Go, chosen by the name it is called by.
//
// Building the parts together links their common code once: one build, one file, a fraction of the size.
package main

import (
	"context"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/spf13/cobra"
	"go.etcd.io/etcd/server/v3/etcdmain"
	"k8s.io/component-base/cli"
	apiserver "k8s.io/kubernetes/cmd/kube-apiserver/app"
	controllermanager "k8s.io/kubernetes/cmd/kube-controller-manager/app"
	proxy "k8s.io/kubernetes/cmd/kube-proxy/app"
	scheduler "k8s.io/kubernetes/cmd/kube-scheduler/app"
	kubelet "k8s.io/kubernetes/cmd/kubelet/app"

	_ "k8s.io/component-base/logs/json/register"          // offers the JSON log format
	_ "k8s.io/component-base/metrics/prometheus/clientgo" // registers the metrics of API clients
	_ "k8s.io/component-base/metrics/prometheus/version"  // registers the version metric
)

func main() {
	parts := map[string]func(){
		"etcd":                    func() { etcdmain.Main(os.Args) },
		"kube-apiserver":          func() { run(apiserver.NewAPIServerCommand()) },
		"kube-controller-manager": func() { run(controllermanager.NewControllerManagerCommand()) },
		"kube-scheduler":          func() { run(scheduler.NewSchedulerCommand()) },
		"kubelet":                 func() { run(kubelet.NewKubeletCommand(context.Background())) },
		"kube-proxy":              func() { run(proxy.NewProxyCommand()) },
		"coredns":                 serveDNS,
		"kubectl":                 runKubectl,
		"node-runtime":            func() { run(newRuntimeCommand()) },
		"volume-provisioner":      func() { run(newVolumeProvisionerCommand()) },
	}
	name := filepath.Base(os.Args[0])
	part, ok := parts[name]
	if !ok {
		known := strings.Join(slices.Sorted(maps.Keys(parts)), ", ")
		fmt.Fprintf(os.Stderr, "%s: not one of this program's names; link it as one of %s\n", name, known)
		os.Exit(2)
	}
	part()
}

func run(command *cobra.Command) {
	os.Exit(cli.Run(command))
}
