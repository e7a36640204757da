package main

import (
	"encoding/json"
	"fmt"
	"os"

	"github.com/argoproj/argo-cd/v3/util/lua"
	"github.com/spf13/cobra"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
)

// A request names one of what Argo CD runs scripts for: health, discovery (of actions) or action.
type request struct {
	Kind   string                     `json:"kind"`
	Script string                     `json:"script"`
	Object *unstructured.Unstructured `json:"object"`
}

type answer struct {
	Result any    `json:"result,omitempty"`
	Error  string `json:"error,omitempty"`
}

// newLua reads a JSON list of requests from standard input and writes as many answers to standard output, each given by Argo CD's own
// runner of scripts with the libraries that it opens in a cluster.
func newLua() *cobra.Command {
	return &cobra.Command{
		Use:          "argocd-lua",
		SilenceUsage: true,
		RunE: func(*cobra.Command, []string) error {
			var requests []request
			if err := json.NewDecoder(os.Stdin).Decode(&requests); err != nil {
				return fmt.Errorf("requests: %w", err)
			}
			answers := make([]answer, 0, len(requests))
			for _, asked := range requests {
				result, err := runScript(asked)
				given := answer{Result: result}
				if err != nil {
					given.Error = err.Error()
				}
				answers = append(answers, given)
			}
			return json.NewEncoder(os.Stdout).Encode(answers)
		},
	}
}

func runScript(asked request) (any, error) {
	machine := lua.VM{}
	switch asked.Kind {
	case "health":
		return machine.ExecuteHealthLua(asked.Object, asked.Script)
	case "discovery":
		return machine.ExecuteResourceActionDiscovery(asked.Object, []string{asked.Script})
	case "action":
		return machine.ExecuteResourceAction(asked.Object, asked.Script, nil)
	default:
		return nil, fmt.Errorf("unknown kind of request %q", asked.Kind)
	}
}
