// Judges objects as Flux does: with kstatus and health expressions, by the libraries of Flux itself.
//
// Reads a JSON list of requests from standard input and writes as many answers to standard output.
package main

import (
	"context"
	stdjson "encoding/json"
	"fmt"
	"os"

	"github.com/fluxcd/cli-utils/pkg/kstatus/status"
	"github.com/fluxcd/pkg/apis/kustomize"
	"github.com/fluxcd/pkg/runtime/cel"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/util/json"
)

type request struct {
	// Kind is kstatus or expressions.
	Kind        string                            `json:"kind"`
	Object      stdjson.RawMessage                `json:"object"`
	Expressions *kustomize.HealthCheckExpressions `json:"expressions"`
}

type answer struct {
	Result any    `json:"result,omitempty"`
	Error  string `json:"error,omitempty"`
}

type verdict struct {
	Status  status.Status `json:"status"`
	Message string        `json:"message"`
}

func main() {
	if err := serve(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func serve() error {
	var requests []request
	if err := stdjson.NewDecoder(os.Stdin).Decode(&requests); err != nil {
		return fmt.Errorf("requests: %w", err)
	}
	answers := make([]answer, 0, len(requests))
	for _, asked := range requests {
		result, err := judge(asked)
		given := answer{Result: result}
		if err != nil {
			given.Error = err.Error()
		}
		answers = append(answers, given)
	}
	return stdjson.NewEncoder(os.Stdout).Encode(answers)
}

func judge(asked request) (any, error) {
	switch asked.Kind {
	case "kstatus":
		return computeStatus(asked.Object)
	case "expressions":
		return evaluate(asked.Expressions, asked.Object)
	default:
		return nil, fmt.Errorf("unknown kind of request %q", asked.Kind)
	}
}

func computeStatus(raw []byte) (any, error) {
	object, err := parse(raw)
	if err != nil {
		return nil, err
	}
	result, err := status.Compute(object)
	if err != nil {
		return nil, err
	}
	return verdict{result.Status, result.Message}, nil
}

func evaluate(expressions *kustomize.HealthCheckExpressions, raw []byte) (any, error) {
	object, err := parse(raw)
	if err != nil {
		return nil, err
	}
	evaluator, err := cel.NewStatusEvaluator(expressions)
	if err != nil {
		return nil, err
	}
	result, err := evaluator.Evaluate(context.Background(), object)
	if err != nil {
		return nil, err
	}
	return verdict{result.Status, result.Message}, nil
}

// parse reads an object with whole numbers as int64, as clients of Kubernetes do.
func parse(raw []byte) (*unstructured.Unstructured, error) {
	content := map[string]any{}
	if err := json.Unmarshal(raw, &content); err != nil {
		return nil, err
	}
	return &unstructured.Unstructured{Object: content}, nil
}
