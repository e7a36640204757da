// The parts of Kubernetes in the oldest version that the chart supports, chosen by the name this program is called by.
//
// What is not Kubernetes' own (etcd, CoreDNS, volumes) is the node's program, whatever the version.
package main

import (
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/spf13/cobra"
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
	parts := map[string]func() *cobra.Command{
		"kube-apiserver":          apiserver.NewAPIServerCommand,
		"kube-controller-manager": controllermanager.NewControllerManagerCommand,
		"kube-scheduler":          func() *cobra.Command { return scheduler.NewSchedulerCommand() },
		"kubelet":                 kubelet.NewKubeletCommand,
		"kube-proxy":              proxy.NewProxyCommand,
	}
	name := filepath.Base(os.Args[0])
	part, ok := parts[name]
	if !ok {
		known := strings.Join(slices.Sorted(maps.Keys(parts)), ", ")
		fmt.Fprintf(os.Stderr, "%s: not one of this program's names; link it as one of %s\n", name, known)
		os.Exit(2)
	}
	os.Exit(cli.Run(part()))
}
