// The MinIO server as one static program: the upstream project is archived and no longer publishes container images.
package main

import (
	"os"

	minio "github.com/minio/minio/cmd"
)

func main() {
	minio.Main(os.Args)
}
