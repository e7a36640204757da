-- A pause whose spec may be edited.
obj.spec.desiredState = "Stopped"
return obj
