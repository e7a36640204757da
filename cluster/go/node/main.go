// One program with every part of a Kubernetes node that is written in Go, chosen by the name it is called by.
//
// Building the parts together links their common code once: one build, one file, a third of the size.
package main

import (
	"fmt"
	"os"
	"path/filepath"

	"github.com/spf13/cobra"
	"go.etcd.io/etcd/server/v3/etcdmain"
	"k8s.io/component-base/cli"
	apiserver "k8s.io/kubernetes/cmd/kube-apiserver/app"
	controllermanager "k8s.io/kubernetes/cmd/kube-controller-manager/app"
	proxy "k8s.io/kubernetes/cmd/kube-proxy/app"
	scheduler "k8s.io/kubernetes/cmd/kube-scheduler/app"
	kubelet "k8s.io/kubernetes/cmd/kubelet/app"
	genericapiserver "k8s.io/apiserver/pkg/server"

	_ "k8s.io/component-base/logs/json/register"
	_ "k8s.io/component-base/metrics/prometheus/clientgo"
	_ "k8s.io/component-base/metrics/prometheus/version"
)

func main() {
	name := filepath.Base(os.Args[0])
	switch name {
	case "etcd":
		etcdmain.Main(os.Args)
	case "kube-apiserver":
		run(apiserver.NewAPIServerCommand(genericapiserver.SetupSignalContext()))
	case "kube-controller-manager":
		run(controllermanager.NewControllerManagerCommand())
	case "kube-scheduler":
		run(scheduler.NewSchedulerCommand())
	case "kubelet":
		run(kubelet.NewKubeletCommand(genericapiserver.SetupSignalContext()))
	case "kube-proxy":
		run(proxy.NewProxyCommand())
	case "coredns":
		serveDNS()
	case "volume-provisioner":
		provisionVolumes()
	default:
		fmt.Fprintf(os.Stderr, "%s: not one of this program's names; link it as etcd, kube-apiserver, kube-controller-manager, "+
			"kube-scheduler, kubelet, kube-proxy, coredns or volume-provisioner\n", name)
		os.Exit(2)
	}
}

func run(command *cobra.Command) {
	os.Exit(cli.Run(command))
}
