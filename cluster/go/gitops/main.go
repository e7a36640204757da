// Judges objects as GitOps tools do: with kstatus and Flux's health expressions (the libraries of Flux itself), and with Lua in the virtual
// machine of Argo CD, opened with the few libraries that Argo CD opens.
//
// Reads a JSON list of requests from standard input and writes as many answers to standard output.
package main

import (
	"context"
	stdjson "encoding/json"
	"fmt"
	"os"
	"time"

	"github.com/fluxcd/cli-utils/pkg/kstatus/status"
	"github.com/fluxcd/pkg/apis/kustomize"
	"github.com/fluxcd/pkg/runtime/cel"
	lua "github.com/yuin/gopher-lua"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/util/json"
	luajson "layeh.com/gopher-json"
)

// scriptTime is how long Argo CD lets a script run.
const scriptTime = time.Second

type request struct {
	// Kind is lua, kstatus or expressions.
	Kind        string                            `json:"kind"`
	Object      stdjson.RawMessage                `json:"object"`
	Script      string                            `json:"script"`
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
	case "lua":
		return runLua(asked.Script, asked.Object)
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

// runLua runs a script with the object as its global obj, and returns what the script returns.
func runLua(script string, raw []byte) (any, error) {
	machine := lua.NewState(lua.Options{SkipOpenLibs: true})
	defer machine.Close()
	libraries := []struct {
		name string
		open lua.LGFunction
	}{{lua.LoadLibName, lua.OpenPackage}, {lua.BaseLibName, lua.OpenBase}, {lua.TabLibName, lua.OpenTable}}
	for _, library := range libraries {
		if err := machine.CallByParam(lua.P{Fn: machine.NewFunction(library.open), Protect: true}, lua.LString(library.name)); err != nil {
			return nil, err
		}
	}
	ctx, cancel := context.WithTimeout(context.Background(), scriptTime)
	defer cancel()
	machine.SetContext(ctx)
	object, err := luajson.Decode(machine, raw)
	if err != nil {
		return nil, err
	}
	machine.SetGlobal("obj", object)
	if err := machine.DoString(script); err != nil {
		return nil, err
	}
	returned := machine.Get(-1)
	if returned.Type() != lua.LTTable {
		return nil, fmt.Errorf("expect table output from Lua script, not %s", returned.Type())
	}
	encoded, err := luajson.Encode(returned)
	if err != nil {
		return nil, err
	}
	return stdjson.RawMessage(encoded), nil
}
