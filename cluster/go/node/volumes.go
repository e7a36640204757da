package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"github.com/spf13/cobra"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	genericapiserver "k8s.io/apiserver/pkg/server"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/clientcmd"
	provision "sigs.k8s.io/sig-storage-lib-external-provisioner/v13/controller"
)

// volumeProvisionerName is what the StorageClass "standard" names as its provisioner.
const volumeProvisionerName = "finetune.dev/directory"

// newVolumeProvisionerCommand serves PersistentVolumeClaims with directories of this machine.
//
// It runs beside the kubelet, as the other node parts do, and so needs no helper pods to make and remove directories.
func newVolumeProvisionerCommand() *cobra.Command {
	var kubeconfig, root string
	command := &cobra.Command{
		Use:          "volume-provisioner",
		Short:        "Serve PersistentVolumeClaims with directories of this machine",
		Args:         cobra.NoArgs,
		SilenceUsage: true,
		RunE: func(*cobra.Command, []string) error {
			config, err := clientcmd.BuildConfigFromFlags("", kubeconfig)
			if err != nil {
				return fmt.Errorf("read kubeconfig %s: %w", kubeconfig, err)
			}
			client, err := kubernetes.NewForConfig(config)
			if err != nil {
				return fmt.Errorf("make a client: %w", err)
			}
			ctx := genericapiserver.SetupSignalContext()
			provision.NewProvisionController(ctx, client, volumeProvisionerName, &directoryProvisioner{root: root},
				provision.LeaderElection(false)).Run(ctx)
			return nil
		},
	}
	command.Flags().StringVar(&kubeconfig, "kubeconfig", "", "how to reach the API server")
	command.Flags().StringVar(&root, "root", "", "the directory under which each volume gets its own")
	return command
}

// directoryProvisioner makes one directory for each volume, named after the volume.
type directoryProvisioner struct {
	root string
}

func (p *directoryProvisioner) Provision(
	_ context.Context, options provision.ProvisionOptions,
) (*corev1.PersistentVolume, provision.ProvisioningState, error) {
	if options.SelectedNodeName == "" {
		return nil, provision.ProvisioningFinished, errors.New("no node selected: the storage class must bind on first use (WaitForFirstConsumer)")
	}
	path := filepath.Join(p.root, options.PVName)
	// Every user may write, as on the local volumes of kind: containers run as users that this machine does not know.
	if err := os.MkdirAll(path, 0o777); err != nil {
		return nil, provision.ProvisioningFinished, fmt.Errorf("make the directory of volume %s: %w", options.PVName, err)
	}
	if err := os.Chmod(path, 0o777); err != nil {
		return nil, provision.ProvisioningFinished, fmt.Errorf("open the directory of volume %s to all users: %w", options.PVName, err)
	}
	return volumeAt(path, options), provision.ProvisioningFinished, nil
}

func (p *directoryProvisioner) Delete(_ context.Context, volume *corev1.PersistentVolume) error {
	if volume.Spec.HostPath == nil || filepath.Dir(volume.Spec.HostPath.Path) != filepath.Clean(p.root) {
		return &provision.IgnoredError{Reason: "the volume is not a directory under " + p.root}
	}
	if err := os.RemoveAll(volume.Spec.HostPath.Path); err != nil {
		return fmt.Errorf("remove the directory of volume %s: %w", volume.Name, err)
	}
	return nil
}

func volumeAt(path string, options provision.ProvisionOptions) *corev1.PersistentVolume {
	hostPathType := corev1.HostPathDirectory
	return &corev1.PersistentVolume{
		ObjectMeta: metav1.ObjectMeta{Name: options.PVName},
		Spec: corev1.PersistentVolumeSpec{
			AccessModes:                   options.PVC.Spec.AccessModes,
			Capacity:                      corev1.ResourceList{corev1.ResourceStorage: options.PVC.Spec.Resources.Requests[corev1.ResourceStorage]},
			PersistentVolumeReclaimPolicy: *options.StorageClass.ReclaimPolicy,
			MountOptions:                  options.StorageClass.MountOptions,
			PersistentVolumeSource: corev1.PersistentVolumeSource{
				HostPath: &corev1.HostPathVolumeSource{Path: path, Type: &hostPathType},
			},
			NodeAffinity: &corev1.VolumeNodeAffinity{Required: &corev1.NodeSelector{
				NodeSelectorTerms: []corev1.NodeSelectorTerm{{
					MatchExpressions: []corev1.NodeSelectorRequirement{{
						Key: corev1.LabelHostname, Operator: corev1.NodeSelectorOpIn, Values: []string{options.SelectedNodeName},
					}},
				}},
			}},
		},
	}
}
