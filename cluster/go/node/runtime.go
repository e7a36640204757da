package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/spf13/cobra"
	genericapiserver "k8s.io/apiserver/pkg/server"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
	cri "k8s.io/cri-client/pkg"
)

const (
	// pullTimeout bounds one request: the trainer image is several gigabytes and is unpacked within it.
	pullTimeout = 20 * time.Minute
	// sweepTimeout bounds the end of one pod, killed without a grace period.
	sweepTimeout = 30 * time.Second
)

// newRuntimeCommand speaks to the container runtime as the kubelet does, for the moments when no kubelet runs.
func newRuntimeCommand() *cobra.Command {
	command := &cobra.Command{Use: "node-runtime", Short: "Speak to this node's container runtime", SilenceUsage: true}
	endpoint := command.PersistentFlags().String("endpoint", "", "the socket of the container runtime, as unix:///path")
	command.AddCommand(&cobra.Command{
		Use:   "pull IMAGE...",
		Short: "Pull and unpack images",
		Args:  cobra.MinimumNArgs(1),
		RunE: func(_ *cobra.Command, images []string) error {
			return pullImages(genericapiserver.SetupSignalContext(), *endpoint, images)
		},
	}, &cobra.Command{
		Use:   "sweep",
		Short: "End and remove every pod",
		Args:  cobra.NoArgs,
		RunE: func(*cobra.Command, []string) error {
			return sweepPods(genericapiserver.SetupSignalContext(), *endpoint)
		},
	})
	return command
}

func pullImages(ctx context.Context, endpoint string, images []string) error {
	service, err := cri.NewRemoteImageService(ctx, endpoint, pullTimeout, nil, false)
	if err != nil {
		return fmt.Errorf("reach the container runtime at %s: %w", endpoint, err)
	}
	for _, image := range images {
		if _, err := service.PullImage(ctx, &runtimeapi.ImageSpec{Image: image}, nil, nil); err != nil {
			return fmt.Errorf("pull %s: %w", image, err)
		}
	}
	return nil
}

// sweepPods removes all pods; one that resists does not keep the others from going.
func sweepPods(ctx context.Context, endpoint string) error {
	service, err := cri.NewRemoteRuntimeService(ctx, endpoint, sweepTimeout, nil, false)
	if err != nil {
		return fmt.Errorf("reach the container runtime at %s: %w", endpoint, err)
	}
	pods, err := service.ListPodSandbox(ctx, nil)
	if err != nil {
		return fmt.Errorf("list pods: %w", err)
	}
	failures := make(chan error, len(pods))
	for _, pod := range pods {
		go func() { failures <- removePod(ctx, service, pod.Id) }()
	}
	var failed error
	for range pods {
		failed = errors.Join(failed, <-failures)
	}
	return failed
}

func removePod(ctx context.Context, service podRemover, id string) error {
	if err := service.StopPodSandbox(ctx, id); err != nil {
		return fmt.Errorf("stop pod %s: %w", id, err)
	}
	if err := service.RemovePodSandbox(ctx, id); err != nil {
		return fmt.Errorf("remove pod %s: %w", id, err)
	}
	return nil
}

type podRemover interface {
	StopPodSandbox(ctx context.Context, id string) error
	RemovePodSandbox(ctx context.Context, id string) error
}
