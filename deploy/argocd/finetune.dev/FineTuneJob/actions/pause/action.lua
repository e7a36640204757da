-- The pause that lasts: a checkpoint is completed in the store, then the pods go.
obj.spec.suspend = true
return obj
